//! All tests in one binary, so that there is one build and one list.

mod goldens;
mod preprocess;
mod support;
