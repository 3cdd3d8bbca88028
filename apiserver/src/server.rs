//! To be written.
pub struct Config;
pub struct ApiServer;
