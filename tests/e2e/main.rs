//! End to end: the real `ace`, real plugins from target/plugins, real mail servers on loopback. A file for each story.

mod servers;
mod support;

mod author;
mod bad_input;
mod bulk;
mod compat;
mod configuration;
mod departures;
mod dev;
mod embedding;
mod explain;
mod faults;
mod files;
mod helpers;
mod hostile;
mod hot;
mod http_channels;
mod import;
mod injection;
mod keyvalue;
mod kit;
mod languages;
mod loader;
mod main_job;
mod manifests;
mod mistakes;
mod moving;
mod outgoing_http;
mod panics;
mod plugin_folder;
mod serve;
mod server_answers;
mod slack;
mod templates;
mod transport;
