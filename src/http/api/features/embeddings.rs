//! `POST /v1/embeddings`: `/v1/embed` in the shape of OpenAI's API, for clients that are made for
//! it.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::embed::{EmbedParams, Floats};
use crate::{
    error::Error,
    http::{
        Result,
        api::schema::{EXAMPLE_IMAGE, EncodingFormat, ImageParams, nullable_choice},
        openapi::FeatureProblems,
        request::body::InputRequest,
        response::{answer::json, problem::openai_response},
    },
    model::ModelSpec,
    service::{EmbedOptions, Embedding, Service},
};

/// Images as OpenAI's clients send them, along with any option of `/v1/embed`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"model": "dinov2-small", "input": EXAMPLE_IMAGE}))]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct InputJson {
    /// An image file, in base64 or as a `data:` URI, or a list of them. Instead of a text, an
    /// object of another API: `{"image": …}`, or a content part
    /// `{"type": "image_url", "image_url": {"url": …}}`.
    input: Option<OneOrSeveral>,
    /// Messages of a chat with exactly one content part, an image, instead of `input`.
    messages: Option<Vec<Value>>,
    /// Name of a served model, or that of its weights, such as `facebook/dinov2-small`. The default
    /// is the first of `GET /v1/models`.
    model: Option<String>,
    /// Form of vectors: numbers, or base64 of little-endian f32.
    #[schema(schema_with = nullable_choice::<EncodingFormat>)]
    encoding_format: Option<String>,
    /// Width of the embeddings. It must be their actual width.
    dimensions: Option<usize>,
    /// Same as `encoding_format`, for Jina's clients.
    #[schema(schema_with = nullable_choice::<EncodingFormat>)]
    embedding_type: Option<String>,
    /// Same as `normalize`, for Jina's clients.
    normalized: Option<bool>,
    /// Ignored.
    user: Option<String>,
    /// Any option of `/v1/embed` except `tokens`.
    #[serde(flatten)]
    options: BTreeMap<String, Value>,
}

/// A string or an object, or a list of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum OneOrSeveral {
    One(TextOrObject),
    Several(Vec<TextOrObject>),
}

/// Base64, a `data:` URI, or an object that holds one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum TextOrObject {
    Text(String),
    #[schema(value_type = Object)]
    Object(Value),
}

/// Options of OpenAI's API that `/v1/embed` does not have.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OpenAiParams {
    dimensions: Option<usize>,
    embedding_type: Option<EncodingFormat>,
    normalized: Option<bool>,
    #[allow(dead_code, reason = "it is accepted and ignored")]
    user: Option<String>,
}

impl OpenAiParams {
    /// Checks that the request fits the model and that the answer has room for what it asks for.
    fn check(&self, embed: &EmbedOptions, spec: &ModelSpec) -> Result<(), Error> {
        embed.check(spec)?;
        let dim = embed.dim(spec);
        if self.dimensions.is_some_and(|dimensions| dimensions != dim) {
            let detail = format!("embeddings cannot be shortened; they have {dim} dimensions");
            return Err(Error::option("dimensions", detail));
        }
        if embed.tokens {
            let detail = "not supported in OpenAI's shape; use /v1/embed";
            return Err(Error::option("tokens", detail));
        }
        Ok(())
    }
}

/// Embeddings in the shape of OpenAI's API.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiList<'a> {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// One entry per image, in the order of the request.
    data: Vec<OpenAiEmbedding>,
    /// Name of the model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    usage: OpenAiUsage,
}

/// Embedding of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiEmbedding {
    /// Always `embedding`.
    #[schema(example = "embedding")]
    object: &'static str,
    /// Index of the image in the request.
    index: usize,
    /// The vector.
    embedding: Floats,
}

/// Number of tokens that the model processed.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiUsage {
    /// Tokens of all images: patches, CLS and registers.
    #[schema(example = 257)]
    prompt_tokens: usize,
    /// Same as `prompt_tokens`, since the model writes none.
    #[schema(example = 257)]
    total_tokens: usize,
}

impl<'a> OpenAiList<'a> {
    /// Builds the list, or fails with the error of the first invalid image.
    fn new(
        spec: &'a ModelSpec,
        embeddings: Vec<Result<Embedding, Error>>,
        encoding: EncodingFormat,
    ) -> Result<Self> {
        let several = embeddings.len() > 1;
        let mut tokens = 0;
        let mut data = Vec::with_capacity(embeddings.len());
        for (index, embedding) in embeddings.into_iter().enumerate() {
            let embedding = embedding.map_err(|error| match several {
                true => error.context(format_args!("input {index}")),
                false => error,
            })?;
            tokens +=
                embedding.grid.width * embedding.grid.height + 1 + spec.architecture.registers;
            data.push(OpenAiEmbedding {
                object: "embedding",
                index,
                embedding: Floats::new(embedding.vector, encoding),
            });
        }
        Ok(Self {
            object: "list",
            data,
            model: &spec.name,
            usage: OpenAiUsage {
                prompt_tokens: tokens,
                total_tokens: tokens,
            },
        })
    }
}

/// Embed images, for OpenAI's clients.
///
/// `input` is an image in base64 or as a `data:` URI, or a list of them. Jina's `{"image": …}`, and
/// content parts with `image_url`, are accepted as well. An invalid image fails the whole request,
/// since this shape has no place for the error of one image.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "features",
    request_body = InputJson,
    responses(
        (status = 200, description = "The embeddings.", body = OpenAiList<'_>),
        FeatureProblems,
    )
)]
pub(crate) async fn create_openai_embedding(
    State(service): State<Service>,
    request: Result<InputRequest>,
) -> Result<Response, Response> {
    let answer = async { embed(&service, request?).await };
    answer.await.map_err(openai_response)
}

async fn embed(service: &Service, mut request: InputRequest) -> Result<Response> {
    let extractor = request.options.choose_model(service)?.of_new();
    let openai: OpenAiParams = request.options.take()?;
    let image: ImageParams = request.options.take()?;
    let (mut embed, encoding) = request.options.take::<EmbedParams>()?.split();
    request.options.reject_unknown()?;
    embed.normalize = openai.normalized.unwrap_or(embed.normalize);
    let encoding = openai.embedding_type.unwrap_or(encoding);
    let spec = extractor.engine().spec();
    openai.check(&embed, spec)?;

    let images = request.contents.0;
    let answer = extractor.embed(images, &image.into(), &embed).await?;
    let body = OpenAiList::new(spec, answer.value, encoding)?;
    json(&body, &answer.stages)
}
