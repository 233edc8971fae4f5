//! `/v1/anomaly`: banks of good images, and scores of others.

pub(crate) mod score;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    features::{anomaly::BankTokens, pca::Foreground},
    gallery::BankName,
    http::{
        AppState, Result,
        api::{
            job::{TrainedJson, TrainedList, WaitParams, answer_job},
            schema::{File, ImageParams, ImagesJson, Prepared},
        },
        openapi::{GalleryProblems, WriteProblems},
        request::{
            body::{BodyRequest, ImageRequest},
            contents::Images,
            model::ModelParams,
            options::Options,
            path::NamePath,
        },
    },
    service::{Augment, BankInfo, BankOptions, ModelChoice, Service},
};

/// A bank and the state of its training.
#[derive(Serialize, ToSchema)]
pub(crate) struct BankJson {
    #[serde(flatten)]
    state: TrainedJson,
    /// The stored bank. It stays while a new one of the same name is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    bank: Option<StoredBankJson>,
}

/// A stored bank.
#[derive(Serialize, ToSchema)]
struct StoredBankJson {
    /// Name of the model of its features.
    #[schema(example = "dinov2-small")]
    model: String,
    /// Fingerprint of these features.
    fingerprint: String,
    /// Tokens that are compared: `early`, `last` or `all`.
    #[schema(value_type = String, example = "early")]
    tokens: BankTokens,
    /// Share of the patches that are kept.
    #[schema(example = 0.25)]
    coreset: f32,
    /// Patches that take part: `none` for all, or `auto`.
    #[schema(value_type = String, example = "none")]
    foreground: Foreground,
    /// Copies that were learned, too: `none` or `rotate`.
    #[schema(value_type = String, example = "none")]
    augment: Augment,
    /// Number of good images.
    #[schema(example = 10)]
    images: usize,
    /// Number of their patches.
    #[schema(example = 13_690)]
    patches: usize,
    /// Number of patches that are kept, with which others are compared.
    #[schema(example = 3_423)]
    entries: usize,
    /// Score above which an image is anomalous; null for a bank of one image.
    #[schema(required, example = 0.21)]
    threshold: Option<f32>,
    #[serde(flatten)]
    prepared: Prepared,
    /// Time of the training, in milliseconds since 1970.
    trained_ms: u64,
}

impl From<BankInfo> for StoredBankJson {
    fn from(info: BankInfo) -> Self {
        let BankOptions {
            tokens,
            coreset,
            foreground,
            augment,
        } = info.options;
        Self {
            model: info.model.name,
            fingerprint: info.model.fingerprint.to_string(),
            tokens,
            coreset,
            foreground,
            augment,
            images: info.images,
            patches: info.patches,
            entries: info.entries,
            threshold: info.threshold,
            prepared: Prepared::from(&info.preprocessing),
            trained_ms: info.trained_ms,
        }
    }
}

/// Options of a bank.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct BankParams {
    /// Tokens that are compared. `early`: those of the fourth block from the end, which show small
    /// differences best. `last`: those of the last block. `all`: those of the last four, which take
    /// four times the memory.
    #[param(inline)]
    tokens: BankTokens,
    /// Share of the patches that are kept, by greedy k-center, above 0. At 1 all are kept.
    #[param(minimum = 0.0, maximum = 1.0, default = 0.25)]
    coreset: f32,
    /// Patches that take part. `auto`: the foreground of each image, by its first principal
    /// component. `none`: all.
    #[param(inline)]
    foreground: Foreground,
    /// Copies of the images that are learned, too. `rotate`: turned by quarters, for things that
    /// lie any way.
    #[param(inline)]
    augment: Augment,
}

impl Default for BankParams {
    fn default() -> Self {
        let BankOptions {
            tokens,
            coreset,
            foreground,
            augment,
        } = BankOptions::default();
        Self {
            tokens,
            coreset,
            foreground,
            augment,
        }
    }
}

/// Make an anomaly bank.
///
/// Learns what good images look like, from 1 to 1000 of them without any defect: ten are a good
/// start. A request has up to `--max-images`; `POST` adds more. The bank is made in the background,
/// one at a time, and replaces one with the same name when it is ready. Images are scored with the
/// image options of the bank.
#[utoipa::path(
    put,
    path = "/v1/anomaly/{name}",
    tag = "features",
    params(
        (
            "name" = String, Path,
            description = "Name of the bank: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`. The \
                first is a letter or digit.",
        ),
        ModelParams, BankParams, WaitParams, ImageParams,
    ),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 202, description = "The work has begun. `Location` is the bank's URL.",
            body = BankJson,
        ),
        (status = 200, description = "With `wait`: the bank is ready.", body = BankJson),
        WriteProblems,
    )
)]
pub(crate) async fn make_bank(
    State(state): State<AppState>,
    NamePath(name): NamePath<BankName>,
    request: ImageRequest,
) -> Result<Response> {
    let service = &state.service;
    let BodyRequest {
        contents: Images(images),
        mut options,
        ..
    } = request;
    let model = options.choose_model(service)?;
    let image = options.take::<ImageParams>()?.into();
    let params: BankParams = options.take()?;
    let wait: WaitParams = options.take()?;
    options.reject_unknown()?;
    let options = BankOptions {
        tokens: params.tokens,
        coreset: params.coreset,
        foreground: params.foreground,
        augment: params.augment,
    };
    let banks = service.banks()?;
    let extractor = model.of_new();
    let training = banks.learn(&extractor, &name, images, &image, options);
    let ended = wait.wait(&state, &*training.await?).await?;
    let bank = bank_json(service, &model, &name).await?;
    Ok(answer_job(ended, (&name).into(), bank))
}

/// Add good images to an anomaly bank.
///
/// The result is as if the bank had been made of all images at once, with its options, as long as
/// it learns all of their patches. It is made in the background.
#[utoipa::path(
    post,
    path = "/v1/anomaly/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the bank."), ModelParams, WaitParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 202, description = "The work has begun. `Location` is the bank's URL.",
            body = BankJson,
        ),
        (status = 200, description = "With `wait`: the bank is ready.", body = BankJson),
        WriteProblems,
    )
)]
pub(crate) async fn add_to_bank(
    State(state): State<AppState>,
    NamePath(name): NamePath<BankName>,
    request: ImageRequest,
) -> Result<Response> {
    let service = &state.service;
    let BodyRequest {
        contents: Images(images),
        mut options,
        ..
    } = request;
    let model = options.choose_model(service)?;
    let wait: WaitParams = options.take()?;
    options.reject_unknown()?;
    let training = service.banks()?.add(&model, &name, images).await?;
    let ended = wait.wait(&state, &training).await?;
    let bank = bank_json(service, &model, &name).await?;
    Ok(answer_job(ended, (&name).into(), bank))
}

/// List the anomaly banks.
#[utoipa::path(
    get,
    path = "/v1/anomaly",
    tag = "features",
    responses(
        (status = 200, description = "The banks, ordered by name.", body = TrainedList),
        GalleryProblems,
    )
)]
pub(crate) async fn list_banks(
    State(service): State<Service>,
    options: Options,
) -> Result<Json<TrainedList>> {
    options.reject_unknown()?;
    Ok(Json(TrainedList::new(service.banks()?.list().await?)))
}

/// Get an anomaly bank and the progress of its training.
#[utoipa::path(
    get,
    path = "/v1/anomaly/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the bank."), ModelParams),
    responses((status = 200, description = "The bank.", body = BankJson), GalleryProblems)
)]
pub(crate) async fn get_bank(
    State(service): State<Service>,
    NamePath(name): NamePath<BankName>,
    mut options: Options,
) -> Result<Json<BankJson>> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    bank_json(&service, &model, &name).await
}

/// Download an anomaly bank.
///
/// The file is a safetensors file with the tokens of the good images and the choice of patches. The
/// command `anomaly` takes it as `--bank`.
#[utoipa::path(
    get,
    path = "/v1/anomaly/{name}/snapshot",
    tag = "features",
    params(("name" = String, Path, description = "Name of the bank."), ModelParams),
    responses(
        (
            status = 200, description = "The bank.",
            body = File, content_type = "application/octet-stream",
        ),
        GalleryProblems,
    )
)]
pub(crate) async fn get_bank_file(
    State(service): State<Service>,
    NamePath(name): NamePath<BankName>,
    mut options: Options,
) -> Result<Response> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let file = service.banks()?.file(&model, &name).await?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    let disposition = format!("attachment; filename=\"{name}.safetensors\"");
    let disposition = [(header::CONTENT_DISPOSITION, disposition)];
    Ok((kind, disposition, file).into_response())
}

/// Delete an anomaly bank. Its training is stopped.
#[utoipa::path(
    delete,
    path = "/v1/anomaly/{name}",
    tag = "features",
    params(("name" = String, Path, description = "Name of the bank."), ModelParams),
    responses((status = 204, description = "The bank is deleted."), GalleryProblems)
)]
pub(crate) async fn delete_bank(
    State(service): State<Service>,
    NamePath(name): NamePath<BankName>,
    mut options: Options,
) -> Result<StatusCode> {
    let model = options.choose_model(&service)?;
    options.reject_unknown()?;
    let banks = service.banks()?;
    if model.is_named() {
        banks.get(&model, &name).await?;
    }
    banks.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn bank_json(
    service: &Service,
    model: &ModelChoice,
    name: &BankName,
) -> Result<Json<BankJson>> {
    let (state, bank) = service.banks()?.get(model, name).await?;
    Ok(Json(BankJson {
        state: TrainedJson::new(name.as_str(), state),
        bank: bank.map(StoredBankJson::from),
    }))
}
