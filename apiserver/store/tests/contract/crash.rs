//! What kill -9 must not take away: nothing that was acknowledged.
