//! What the tools for plugin authors use: one plugin outside of any folder ([`standalone`]), in a sandbox that records and answers
//! its requests ([`sandbox`]).

pub mod sandbox;
pub mod standalone;
