//! `/v1/galleries/{name}/audit`: near-duplicates, outliers, labels that are likely wrong, and
//! groups among the items of a gallery.

mod report;

use std::num::NonZero;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::{IntoParams, ToSchema};

use self::report::ReportJson;
use crate::{
    error::ResultExt,
    features::audit::AuditOptions,
    gallery::{DocumentKey, GalleryName},
    http::{
        AppState, Result,
        api::{
            job::{JobJson, WaitParams, answer_job, large_json},
            schema::File,
        },
        openapi::{GalleryProblems, SearchProblems},
        request::{model::ModelParams, options::Options, path::NamePath},
        response::negotiate::{Representation, negotiate},
    },
    service::{JobState, Service, StoredAudit},
};

/// Representations of an audit.
const OFFERS: [Representation; 2] = [Representation::Json, Representation::Csv];

/// State of the audit of a gallery, and its report.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditJson {
    /// Name of the gallery.
    #[schema(value_type = String, example = "default")]
    gallery: GalleryName,
    #[serde(flatten)]
    job: JobJson,
    /// Report of the last audit, unless one is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<ReportJson>,
}

/// Options of an audit.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParams {
    /// Number of similar items of each item that are looked at.
    #[param(minimum = 1, maximum = 100, default = 20)]
    neighbors: usize,
    /// Cosine from which on two items are near-duplicates, from 0 to 1.
    #[param(minimum = 0, maximum = 1, default = 0.97)]
    duplicates_above: f32,
    /// Number of clusters. The default is the one with the best silhouette.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, example = 10)]
    clusters: Option<NonZero<usize>>,
}

impl Default for AuditParams {
    fn default() -> Self {
        let AuditOptions {
            neighbors,
            duplicates_above,
            clusters,
        } = AuditOptions::default();
        Self {
            neighbors,
            duplicates_above,
            clusters,
        }
    }
}

/// Audit a gallery.
///
/// Finds near-duplicates, outliers, labels that are likely wrong, and groups of similar items. The
/// audit runs in the background with low priority; only one audit, map or training is made at a
/// time. Its report replaces that of the last audit, and is kept until the gallery is deleted or
/// restored.
#[utoipa::path(
    post,
    path = "/v1/galleries/{name}/audit",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams, AuditParams, WaitParams,
    ),
    responses(
        (
            status = 202, description = "The audit has begun. `Location` is its URL.",
            body = AuditJson,
        ),
        (status = 200, description = "With `wait`: the report is ready.", body = AuditJson),
        SearchProblems,
    )
)]
pub(crate) async fn audit_gallery(
    State(state): State<AppState>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<Response> {
    let service = &state.service;
    options.check_model_of(service, &name).await?;
    let params: AuditParams = options.take()?;
    let wait: WaitParams = options.take()?;
    options.reject_unknown()?;
    let options = AuditOptions {
        neighbors: params.neighbors,
        duplicates_above: params.duplicates_above,
        clusters: params.clusters,
    };
    let job = service.audits()?.start(&name, options).await?;
    let ended = wait.wait(&state, &job).await?;
    let (state, stored) = service.audits()?.get(&name).await?;
    let gallery = name.clone();
    let json = large_json(move || audit_json(gallery, state, stored)).await?;
    Ok(answer_job(ended, DocumentKey::of_audit(&name), json))
}

/// Get the audit of a gallery: its progress, or its report.
#[utoipa::path(
    get,
    path = "/v1/galleries/{name}/audit",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses(
        (
            status = 200,
            description = "The audit. `text/csv`: the findings of its report, with a row for each \
                item of each finding; 404 without a report.",
            content((AuditJson = "application/json"), (File = "text/csv")),
        ),
        GalleryProblems,
    )
)]
pub(crate) async fn get_audit(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    headers: HeaderMap,
    mut options: Options,
) -> Result<Response> {
    let representation = negotiate(&headers, &OFFERS)?;
    options.check_model_of(&service, &name).await?;
    options.reject_unknown()?;
    let audits = service.audits()?;
    if representation == Representation::Json {
        let (state, stored) = audits.get(&name).await?;
        return large_json(move || audit_json(name, state, stored)).await;
    }
    let report = audits.report(&name).await?;
    let rows = spawn_blocking(move || report.to_csv()).await;
    let rows = rows.internal("writing rows")??;
    let kind = (header::CONTENT_TYPE, representation.media_type().to_owned());
    let disposition = format!("attachment; filename=\"{name}-audit.csv\"");
    Ok(([kind, (header::CONTENT_DISPOSITION, disposition)], rows).into_response())
}

/// Cancel the audit of a gallery, or delete its report.
///
/// During an audit only that is cancelled, and the report of the last one stays.
#[utoipa::path(
    delete,
    path = "/v1/galleries/{name}/audit",
    tag = "gallery",
    params(
        ("name" = String, Path, description = "Name of the gallery.", example = "default"),
        ModelParams,
    ),
    responses(
        (status = 204, description = "No audit runs any more, or the report is deleted."),
        GalleryProblems,
    )
)]
pub(crate) async fn delete_audit(
    State(service): State<Service>,
    NamePath(name): NamePath<GalleryName>,
    mut options: Options,
) -> Result<StatusCode> {
    options.check_model_of(&service, &name).await?;
    options.reject_unknown()?;
    service.audits()?.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn audit_json(gallery: GalleryName, state: JobState, stored: Option<StoredAudit>) -> AuditJson {
    AuditJson {
        gallery,
        job: state.into(),
        audit: stored.map(ReportJson::from),
    }
}
