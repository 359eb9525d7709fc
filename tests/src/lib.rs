//! Equipment of the integration tests: databases to test on, and usage to put into them.

pub mod databases;
pub mod postgres_server;
pub mod usage;
