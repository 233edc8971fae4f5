//! `POST /v1/embed`.

use axum::{extract::State, response::Response};
use ndarray::{Array, Array2, Axis, Dimension};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::maps::rows;
use crate::{
    error::{Error, ResultExt},
    features::{npy, pool::Pooling},
    http::{
        Result,
        api::schema::{EncodingFormat, File, ImageParams, ImagesJson},
        openapi::FeatureProblems,
        request::{body::ImageRequest, model::ModelParams},
        response::{
            answer::{answer, first_error, float_base64, float_bytes, json},
            negotiate::{Representation, different_grids, negotiate},
            problem::Problem,
        },
    },
    service::{EmbedOptions, Embedding, Extractor, Service, Timed},
};

const OFFERS: [Representation; 3] = [
    Representation::Json,
    Representation::Floats,
    Representation::Npy,
];

/// Options of embeddings.
#[derive(Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EmbedParams {
    /// How tokens are pooled into a vector. `cls_mean` is twice as wide as the model.
    #[param(inline)]
    pooling: Pooling,
    /// Whether to scale the vector to length 1.
    #[param(default = true)]
    normalize: bool,
    /// Number of last blocks whose pooled vectors are concatenated, the last block last.
    #[param(minimum = 1, maximum = 4, default = 1)]
    layers: usize,
    /// Whether to return the patch tokens of the last block: in JSON in addition to the embedding,
    /// in binary forms instead of it.
    #[param(default = false)]
    tokens: bool,
    /// Form of vectors in JSON: numbers, or base64 of little-endian f32.
    #[param(inline)]
    encoding_format: EncodingFormat,
}

impl Default for EmbedParams {
    fn default() -> Self {
        let options = EmbedOptions::default();
        Self {
            pooling: options.pooling,
            normalize: options.normalize,
            layers: options.layers,
            tokens: options.tokens,
            encoding_format: EncodingFormat::default(),
        }
    }
}

impl EmbedParams {
    /// Separates the options of the embedding from the form of its numbers.
    pub(crate) fn split(self) -> (EmbedOptions, EncodingFormat) {
        let options = EmbedOptions {
            pooling: self.pooling,
            normalize: self.normalize,
            layers: self.layers,
            tokens: self.tokens,
        };
        (options, self.encoding_format)
    }
}

/// Embeddings of the images of a request.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbedAnswer<'a> {
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Fingerprint of the features. Only vectors with the same fingerprint are comparable.
    fingerprint: &'a str,
    /// Width of the embeddings.
    #[schema(example = 384)]
    dim: usize,
    /// One entry per image, in the order of the request.
    data: Vec<EmbedItem>,
}

/// Embedding of an image, or the problem with the image.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbedItem {
    /// Index of the image in the request.
    index: usize,
    #[serde(flatten)]
    outcome: EmbedOutcome,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum EmbedOutcome {
    Embedding {
        /// The vector.
        embedding: Floats,
        /// Height and width of the image in patches.
        grid: [usize; 2],
        /// Patch tokens, row by row, if requested.
        #[serde(skip_serializing_if = "Option::is_none")]
        tokens: Option<Tokens>,
    },
    Failed {
        /// Problem with this image.
        error: Problem,
    },
}

/// A list of numbers, or base64 of little-endian f32.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Floats {
    Numbers(Vec<f32>),
    Base64(String),
}

impl Floats {
    pub(crate) fn new(values: Vec<f32>, encoding: EncodingFormat) -> Self {
        match encoding {
            EncodingFormat::Float => Self::Numbers(values),
            EncodingFormat::Base64 => Self::Base64(float_base64(&values)),
        }
    }
}

/// `[patches, dim]`: rows of numbers, or base64 of little-endian f32.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Tokens {
    Numbers(Vec<Vec<f32>>),
    Base64(String),
}

impl Tokens {
    fn new(tokens: &Array2<f32>, encoding: EncodingFormat) -> Self {
        match encoding {
            EncodingFormat::Float => Self::Numbers(rows(tokens.view())),
            EncodingFormat::Base64 => {
                Self::Base64(float_base64(tokens.as_slice().unwrap_or_default()))
            }
        }
    }
}

/// Embed images.
///
/// Returns one vector per image. In JSON, an invalid image gets an `error`, and the other images of
/// the request still get their vectors.
#[utoipa::path(
    post,
    path = "/v1/embed",
    tag = "features",
    params(ModelParams, ImageParams, EmbedParams),
    request_body(content((ImagesJson = "application/json"))),
    responses(
        (
            status = 200,
            description = "The embeddings. `application/octet-stream`: little-endian f32 \
                `[n, dim]`. `application/x-npy`: the same as a `.npy` file.",
            content(
                (EmbedAnswer<'_> = "application/json"),
                (File = "application/octet-stream"),
                (File = "application/x-npy"),
            ),
        ),
        FeatureProblems,
    )
)]
pub(crate) async fn create_embedding(
    State(service): State<Service>,
    mut request: ImageRequest,
) -> Result<Response> {
    let representation = negotiate(&request.headers, &OFFERS)?;
    let extractor = request.options.choose_model(&service)?.of_new();
    let image: ImageParams = request.options.take()?;
    let (embed, encoding) = request.options.take::<EmbedParams>()?.split();
    request.options.reject_unknown()?;

    let images = request.contents.0;
    let embedded = extractor.embed(images, &image.into(), &embed).await?;
    let model = extractor.clone();
    let respond = move || match representation {
        Representation::Json => json_answer(&model, embedded, &embed, encoding),
        _ => {
            let body = to_binary(embedded.value, &embed, representation)?;
            Ok(answer(representation, body, &embedded.stages))
        }
    };
    // Encoding vectors takes microseconds, but the tokens of one image are a thousand vectors.
    if embed.tokens {
        extractor
            .on_blocking_thread("writing the answer", || Ok(respond()))
            .await?
    } else {
        respond()
    }
}

fn json_answer(
    model: &Extractor,
    embedded: Timed<Vec<Result<Embedding, Error>>>,
    options: &EmbedOptions,
    encoding: EncodingFormat,
) -> Result<Response> {
    let embeddings = embedded.value;
    // If every image is invalid, the request as a whole has failed.
    if embeddings.iter().all(Result::is_err) {
        return Err(first_error(embeddings).into());
    }
    let mut data = Vec::with_capacity(embeddings.len());
    for (index, embedding) in embeddings.into_iter().enumerate() {
        let outcome = match embedding {
            Ok(result) => EmbedOutcome::Embedding {
                embedding: Floats::new(result.vector, encoding),
                grid: [result.grid.height, result.grid.width],
                tokens: result.tokens.map(|tokens| Tokens::new(&tokens, encoding)),
            },
            Err(error) => EmbedOutcome::Failed {
                error: Problem::new(error),
            },
        };
        data.push(EmbedItem { index, outcome });
    }
    let engine = model.engine();
    let body = EmbedAnswer {
        model: model.name(),
        fingerprint: engine.fingerprint(),
        dim: options.dim(engine.spec()),
        data,
    };
    json(&body, &embedded.stages)
}

/// Encodes embeddings or tokens as one array, which has no place for the error of an image.
fn to_binary(
    embeddings: Vec<Result<Embedding, Error>>,
    options: &EmbedOptions,
    form: Representation,
) -> Result<Vec<u8>> {
    if embeddings.iter().any(Result::is_err) {
        return Err(first_error(embeddings).into());
    }
    let embeddings: Vec<Embedding> = embeddings.into_iter().flatten().collect();
    if options.tokens {
        let tokens = embeddings
            .iter()
            .filter_map(|embedding| embedding.tokens.as_ref());
        let tokens: Vec<_> = tokens.map(|tokens| tokens.view()).collect();
        let stacked = ndarray::stack(Axis(0), &tokens).map_err(|_| different_grids())?;
        return Ok(encode(&stacked, form)?);
    }
    let dim = embeddings.first().map_or(0, |first| first.vector.len());
    let values = embeddings
        .iter()
        .flat_map(|embedding| embedding.vector.iter().copied())
        .collect();
    let matrix = Array2::from_shape_vec((embeddings.len(), dim), values);
    Ok(encode(&matrix.internal("joining embeddings")?, form)?)
}

fn encode<D: Dimension>(array: &Array<f32, D>, form: Representation) -> Result<Vec<u8>, Error> {
    match form {
        Representation::Npy => npy::encode(array),
        _ => Ok(float_bytes(array.as_slice().unwrap_or_default()).into_owned()),
    }
}
