//! From a registered check to a served report, in process.

mod properties;
mod route;
mod stress;
