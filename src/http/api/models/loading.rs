//! `POST /v1/models/load` and `DELETE /v1/models/{id}`.

use std::fmt::Display;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
};
use futures_util::TryFutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use strum::VariantNames;
use utoipa::ToSchema;

use super::{Model, invalid_path};
use crate::{
    error::{Error, Kind, shortened},
    http::{
        AppState, Rejection, Result,
        openapi::GalleryProblems,
        request::{body::in_time, json::without_bom},
        response::problem::Problem,
    },
    onnx::Precision,
    service::{LoadPlan, Service},
};

/// Maximum size of a request to load a model, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;

/// A model that is not served any more.
#[derive(Serialize, ToSchema)]
pub(crate) struct UnloadedModel {
    /// Name.
    #[schema(example = "dinov2-small")]
    id: String,
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

/// Unload a model.
///
/// Requests that have begun end on it. The response comes when the last of them has ended and the
/// model's memory is free; from the beginning on no new request gets the model. The default model
/// stays: make another one the default first. Stored features of the model are kept; what needs
/// the model answers 409 until it is loaded again.
#[utoipa::path(
    delete,
    path = "/v1/models/{id}",
    tag = "server",
    params(("id" = String, Path, description = "Name of the model.", example = "dinov2-small")),
    responses(
        (status = 200, description = "The model is unloaded.", body = UnloadedModel),
        (
            status = 409,
            description = "It is the default model, or another model is being loaded.",
            body = Problem, content_type = "application/problem+json",
        ),
        GalleryProblems,
    )
)]
pub(crate) async fn unload_model(
    State(service): State<Service>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<UnloadedModel>> {
    let Path(id) = id.map_err(|_| invalid_path())?;
    let id = service.models().unload(id).await?;
    let (object, deleted) = ("model", true);
    Ok(Json(UnloadedModel {
        id,
        object,
        deleted,
    }))
}

/// The model to load.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadModel {
    /// Name in the catalog.
    #[schema(example = "dinov2-small-focus")]
    model: String,
    /// Precision of its weights: `fp32`, `int8` or `fp16`. The default is the precision that the
    /// server was started with.
    #[schema(example = "fp32")]
    precision: Option<String>,
    /// Whether it answers requests that name no model from now on.
    #[serde(default)]
    default: bool,
}

/// Result of loading a model.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoadedModel {
    /// The new model.
    model: Model,
    /// Fingerprint of the model that it replaced. Absent if none had its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint_before: Option<String>,
}

/// Load a model.
///
/// Downloads and converts the model if necessary, starts it next to the others, and warms it up.
/// Then it is served, in addition to them, or in the place of the one that has its name: so the
/// name of a served model loads its file again, or in another precision. No request fails: running
/// requests finish with the old model. If the new model cannot be served, everything stays as
/// before. Loading continues if the client disconnects.
#[utoipa::path(
    post,
    path = "/v1/models/load",
    tag = "server",
    request_body = LoadModel,
    responses(
        (status = 200, description = "The model is served.", body = LoadedModel),
        (
            status = 409,
            description = "Another model is being loaded, or there are `--max-models` already.",
            body = Problem, content_type = "application/problem+json",
        ),
        (
            status = 422,
            description = "The model cannot be served; `detail` says why.",
            body = Problem, content_type = "application/problem+json",
        ),
        (
            status = "4XX", description = "The request is invalid.",
            body = Problem, content_type = "application/problem+json",
        ),
    )
)]
pub(crate) async fn load_model(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<LoadedModel>> {
    let read = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("the body is larger than the limit of {MAX_BODY_BYTES} bytes");
                Error::new(Kind::TooLarge, detail).into()
            } else {
                malformed(error)
            }
        });
    let body = in_time(&state.config, read).await?.to_bytes();
    let LoadModel {
        model,
        precision,
        default,
    } = serde_json::from_slice(without_bom(&body)).map_err(malformed)?;
    let plan = LoadPlan {
        model,
        precision: precision.as_deref().map(parse_precision).transpose()?,
        is_default: default,
    };
    let models = state.service.models();
    let loaded = models.load(plan).await?;
    Ok(Json(LoadedModel {
        model: Model::new(&loaded.engine, models),
        fingerprint_before: loaded.replaced,
    }))
}

fn malformed(error: impl Display) -> Rejection {
    let detail = format!("the body is not {{\"model\": NAME}}: {error}");
    Error::malformed(detail).into()
}

fn parse_precision(name: &str) -> Result<Precision, Error> {
    name.parse().map_err(|_| {
        let known = Precision::VARIANTS.join(", ");
        let name = shortened(name);
        let detail = format!("unknown: {name:?}; expected one of {known}");
        Error::option("precision", detail)
    })
}
