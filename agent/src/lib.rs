//! Placeholder, replaced within the first hour.
