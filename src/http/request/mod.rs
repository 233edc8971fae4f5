//! Requests: admission, bodies, options, models and names in paths.

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod contents;
mod file_name;
mod image_text;
mod image_value;
pub(crate) mod json;
mod json_list;
mod lenient;
pub(crate) mod model;
pub(crate) mod options;
pub(crate) mod path;
