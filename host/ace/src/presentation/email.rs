//! Post-processing of e-mail: absolute links, inlined style sheets, minified HTML, and the text part derived from the HTML.

mod absolute;
mod fallbacks;
mod html;
mod inline;
mod postprocess;
#[cfg(test)]
mod tests;
mod text;

pub(super) use inline::Inliner;
pub(super) use postprocess::{BODY_HTML, BODY_TXT, CHANNEL_TYPE, postprocess};
