//! The API, over HTTP.

mod access;
mod bases;
mod conflicts;
mod connections;
mod families;
mod features;
mod gallery;
mod gallery_problems;
mod gallery_snapshot;
mod hot_swap;
mod levels;
mod models;
mod observation;
mod openai;
mod openapi;
mod page_patches;
mod page_tools;
mod pages;
mod patches;
mod probes;
mod problems;
mod requests;
mod schema;
mod security;
mod similarity;
