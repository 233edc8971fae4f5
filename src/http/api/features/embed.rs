//! `POST /v1/embed`.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind, Result},
    features::npy,
    http::{
        api::schema::{EmbedParams, File, ImageParams, ImagesForm, ImagesJson},
        request::{body::ImageRequest, options::EncodingFormat},
        response::{
            negotiate::{Representation, answer, float_base64, float_bytes, negotiate},
            problem::{FeatureProblems, Problem},
        },
    },
    service::{EmbedOptions, Embedding, Service, Timed},
};

/// Embeddings, in the order of the images.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbedAnswer<'a> {
    /// The model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    /// Identifies the features: vectors compare only with others of the same fingerprint.
    fingerprint: &'a str,
    /// Width of the embeddings.
    #[schema(example = 384)]
    dim: usize,
    /// One entry per image.
    data: Vec<EmbedItem>,
}

/// The embedding of an image, or what is wrong with the image.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbedItem {
    /// Which image of the request.
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
        /// The patch tokens, row by row, if asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        tokens: Option<Tokens>,
    },
    Failed {
        /// Why there is none.
        error: Problem,
    },
}

/// Numbers, or base64 of little-endian f32.
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

#[derive(Deserialize, Default)]
#[serde(default)]
struct Encoding {
    encoding_format: EncodingFormat,
}

/// Embed images.
///
/// One vector per image. In JSON a bad image among good ones gets an `error`, and the others their
/// vectors.
#[utoipa::path(
    post,
    path = "/v1/embed",
    tag = "features",
    params(ImageParams, EmbedParams),
    request_body(content(
        (File = "image/*"), (File = "application/octet-stream"), (ImagesForm = "multipart/form-data"),
        (ImagesJson = "application/json"),
    )),
    responses(
        (status = 200, description = "The embeddings. `application/octet-stream`: f32 little-endian `[n, dim]`; \
            `application/x-npy`: the same as a `.npy` file.", content(
            (EmbedAnswer<'_> = "application/json"), (File = "application/octet-stream"), (File = "application/x-npy"))),
        FeatureProblems,
    )
)]
pub(crate) async fn create_embedding(
    State(service): State<Service>,
    request: ImageRequest,
) -> Result<Response> {
    const OFFERS: [Representation; 3] = [
        Representation::Json,
        Representation::Floats,
        Representation::Npy,
    ];
    // The request's place is held until the answer is ready.
    let ImageRequest {
        images,
        mut options,
        headers,
        admission: _admission,
    } = request;
    let representation = negotiate(&headers, &OFFERS)?;
    let image = options.take_image()?;
    let embed: EmbedOptions = options.take()?;
    let Encoding { encoding_format } = options.take()?;
    options.finish()?;

    let Timed {
        value: embeddings,
        stages,
    } = service.extractor.embed(images, &image, &embed).await?;
    let of_answer = service.clone();
    let encode = move || match representation {
        Representation::Json => to_json(&of_answer, embeddings, &embed, encoding_format),
        _ => to_binary(embeddings, &embed, representation),
    };
    // Vectors are written in microseconds; the tokens of an image are a thousand vectors.
    let body = if embed.tokens {
        service
            .extractor
            .on_blocking_thread("writing the answer", encode)
            .await?
    } else {
        encode()?
    };
    Ok(answer(representation, body, &stages))
}

fn to_json(
    service: &Service,
    embeddings: Vec<Result<Embedding>>,
    options: &EmbedOptions,
    encoding: EncodingFormat,
) -> Result<Vec<u8>> {
    // When no image is good, the request as a whole has failed.
    if embeddings.iter().all(std::result::Result::is_err) {
        return Err(
            first_error(embeddings).unwrap_or_else(|| Error::internal("there are no images"))
        );
    }
    let item = |(index, result): (usize, Result<Embedding>)| {
        let outcome = match result {
            Ok(Embedding {
                vector,
                grid,
                tokens,
            }) => EmbedOutcome::Embedding {
                embedding: Floats::new(vector, encoding),
                grid: [grid.height, grid.width],
                tokens: tokens.map(|tokens| match encoding {
                    EncodingFormat::Float => {
                        Tokens::Numbers(tokens.rows().into_iter().map(|row| row.to_vec()).collect())
                    }
                    EncodingFormat::Base64 => {
                        Tokens::Base64(float_base64(tokens.as_slice().unwrap_or_default()))
                    }
                }),
            },
            Err(error) => EmbedOutcome::Failed {
                error: Problem::new(&error),
            },
        };
        EmbedItem { index, outcome }
    };
    let engine = service.engine();
    let answer = EmbedAnswer {
        model: &engine.spec().name,
        fingerprint: engine.fingerprint(),
        dim: options.dim(engine.spec()),
        data: embeddings.into_iter().enumerate().map(item).collect(),
    };
    serde_json::to_vec(&answer).map_err(|error| Error::internal(error.to_string()))
}

fn first_error(embeddings: Vec<Result<Embedding>>) -> Option<Error> {
    let several = embeddings.len() > 1;
    let (index, error) = embeddings
        .into_iter()
        .enumerate()
        .find_map(|(index, result)| Some((index, result.err()?)))?;
    Some(if several {
        error.context(format_args!("image {index}"))
    } else {
        error
    })
}

/// A matrix has no room for errors, so the first spoils it.
fn to_binary(
    embeddings: Vec<Result<Embedding>>,
    options: &EmbedOptions,
    form: Representation,
) -> Result<Vec<u8>> {
    if embeddings.iter().any(std::result::Result::is_err) {
        return Err(
            first_error(embeddings).unwrap_or_else(|| Error::internal("there are no images"))
        );
    }
    let embeddings: Vec<Embedding> = embeddings.into_iter().flatten().collect();
    if options.tokens {
        let tokens: Vec<_> = embeddings
            .iter()
            .filter_map(|embedding| embedding.tokens.as_ref())
            .map(|t| t.view())
            .collect();
        let stacked = ndarray::stack(ndarray::Axis(0), &tokens).map_err(|_| different_grids())?;
        return match form {
            Representation::Npy => npy::encode(&stacked),
            _ => Ok(float_bytes(stacked.as_slice().unwrap_or_default()).into_owned()),
        };
    }
    let dim = embeddings
        .first()
        .map_or(0, |embedding| embedding.vector.len());
    let values: Vec<f32> = embeddings
        .iter()
        .flat_map(|embedding| embedding.vector.iter().copied())
        .collect();
    match form {
        Representation::Npy => {
            let matrix = ndarray::Array2::from_shape_vec((embeddings.len(), dim), values);
            npy::encode(&matrix.map_err(|error| Error::internal(error.to_string()))?)
        }
        _ => Ok(float_bytes(&values).into_owned()),
    }
}

/// Maps of images with different grids do not fit one array.
pub(crate) fn different_grids() -> Error {
    Error::new(
        Kind::NotAcceptable,
        "the images have different grids, which do not fit one array; send them one by one, ask for JSON, or give them \
         one size by resize=squash or resize=crop",
    )
}
