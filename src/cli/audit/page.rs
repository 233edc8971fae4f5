//! The findings as one HTML page, which holds its pictures and needs no network.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;

use crate::{error::Error, service::AuditReport};

const TEMPLATE: &str = include_str!("page.html");
/// Number of pictures that are shown of a group.
const OF_GROUP: usize = 12;

/// A picture of a finding.
#[derive(Serialize)]
struct Picture {
    id: String,
    /// A `data:` URI; empty for an item without a picture.
    image: String,
    label: Option<String>,
    suggested: Option<String>,
    score: Option<f32>,
}

/// Several pictures.
#[derive(Serialize)]
struct Group {
    pictures: Vec<Picture>,
    images: usize,
    score: f32,
    label: Option<String>,
    /// Whether all files are the same byte by byte.
    identical: bool,
}

/// Renders the page with up to `show` findings of each kind.
pub(super) async fn render(
    title: &str,
    report: &AuditReport,
    show: usize,
    picture: &mut impl AsyncFnMut(&str) -> anyhow::Result<Option<Vec<u8>>>,
) -> anyhow::Result<String> {
    let groups = report.duplicates.iter().take(show).map(|group| &group.ids);
    let clusters = report.clusters.iter().map(|cluster| &cluster.ids);
    let of_groups = groups
        .chain(clusters)
        .flat_map(|ids| ids.iter().take(OF_GROUP));
    let outliers = report.outliers.iter().take(show).map(|found| &found.id);
    let mislabels = report.mislabels.iter().take(show).map(|found| &found.id);
    let mut images: HashMap<&str, String> = HashMap::new();
    for id in of_groups.chain(outliers).chain(mislabels) {
        if !images.contains_key(id.as_str()) {
            let file = picture(id).await?;
            let uri =
                file.map(|file| format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(file)));
            images.insert(id, uri.unwrap_or_default());
        }
    }
    let plain = |id: &String| Picture {
        id: id.clone(),
        image: images.get(id.as_str()).cloned().unwrap_or_default(),
        label: None,
        suggested: None,
        score: None,
    };
    let group = |ids: &[String], score: f32, label: Option<&String>| Group {
        pictures: ids.iter().take(OF_GROUP).map(plain).collect(),
        images: ids.len(),
        score,
        label: label.cloned(),
        identical: false,
    };
    let duplicates: Vec<Group> = report
        .duplicates
        .iter()
        .take(show)
        .map(|found| Group {
            identical: found.identical == Some(true),
            ..group(&found.ids, found.score, None)
        })
        .collect();
    let clusters: Vec<Group> = report
        .clusters
        .iter()
        .map(|found| group(&found.ids, found.cohesion, found.label.as_ref()))
        .collect();
    let outliers: Vec<Picture> = report
        .outliers
        .iter()
        .take(show)
        .map(|found| Picture {
            score: Some(found.score),
            ..plain(&found.id)
        })
        .collect();
    let mislabels: Vec<Picture> = report
        .mislabels
        .iter()
        .take(show)
        .map(|found| Picture {
            label: Some(found.label.clone()),
            suggested: Some(found.suggested.clone()),
            score: Some(found.score),
            ..plain(&found.id)
        })
        .collect();
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("fixed", |value: f64, digits: usize| {
        format!("{value:.digits$}")
    });
    let counts = context! {
        images => report.images,
        duplicates => report.duplicates.len(),
        outliers => report.outliers.len(),
        mislabels => report.mislabels.len(),
        clusters => report.clusters.len(),
        silhouette => report.silhouette,
    };
    environment
        .render_str(
            TEMPLATE,
            context! { title, counts, duplicates, outliers, mislabels, clusters },
        )
        .map_err(|error| Error::internal(format!("the page of the report: {error:#}")).into())
}
