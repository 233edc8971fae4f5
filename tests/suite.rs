//! All tests in one binary, so that there is one build and one list.

mod cli;
mod download;
mod goldens;
mod http;
mod openapi;
mod positions;
mod preprocess;
mod problems;
mod shutdown;
mod support;
mod tidy;
mod weights;
