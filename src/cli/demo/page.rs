//! The page with all pictures.

use minijinja::{AutoEscape, Environment, context};

use super::drawing::Drawn;
use crate::error::{Error, Result};

const TEMPLATE: &str = include_str!("page.html");

/// Returns the page. The pictures are files next to it.
pub(super) fn render(model: &str, photographs: &[Drawn]) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("percent", |share: f64| format!("{:.0} %", share * 100.0));
    environment.add_filter("fixed", |value: f64, digits: usize| {
        format!("{value:.digits$}")
    });
    let names: Vec<&str> = photographs.iter().map(|one| one.name.as_str()).collect();
    let cosines: Vec<Vec<f32>> = photographs
        .iter()
        .map(|one| photographs.iter().map(|other| cosine(one, other)).collect())
        .collect();
    let dim = photographs.first().map_or(0, |one| one.embedding.len());
    environment
        .render_str(
            TEMPLATE,
            context! { model, photographs, names, cosines, dim },
        )
        .map_err(|error| Error::internal(format!("the page of the demo: {error:#}")))
}

/// Returns the cosine of two embeddings of length 1.
fn cosine(one: &Drawn, other: &Drawn) -> f32 {
    let pairs = one.embedding.iter().zip(&other.embedding);
    pairs.map(|(a, b)| a * b).sum()
}
