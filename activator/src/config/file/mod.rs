//! The configuration file: who may publish, and where it goes. In: the text of a YAML file, and the files that it names. Out: [`ConfigFile`], known
//! to be good, or every mistake with its line and its fix. Next: `routes`, which finds the route of a publisher.
//!
//! `yaml` makes a tree of the text, `table` takes values out of it, `read` knows what a file may say. All are pure: files are read by a function
//! that the caller gives. `deploy/config.schema.json` describes the same for editors.

mod jwt;
mod read;
mod table;
mod yaml;

pub(crate) use read::name_of;
pub(super) use read::parse;
pub use read::{ConfigFile, DEFAULT_ROUTE, Given, ListedPublisher, Route, RouteBackup, RouteDestination, check_name};
