//! `POST /v1/embeddings`: the twin of `/v1/embed` in OpenAI's shape, so that clients made for that
//! can be pointed here.

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind, Result},
    http::{
        api::{features::embed::Floats, schema::InputJson},
        request::{body::InputRequest, options::EncodingFormat},
        response::{
            negotiate::{Representation, answer},
            problem::{FeatureProblems, openai_response},
        },
    },
    service::{EmbedOptions, Service, Timed},
    vision::Grid,
};

/// Embeddings as OpenAI's clients read them.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiList<'a> {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// One entry per image, in their order.
    data: Vec<OpenAiEmbedding>,
    /// The model.
    #[schema(example = "dinov2-small")]
    model: &'a str,
    usage: OpenAiUsage,
}

/// An embedding.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiEmbedding {
    /// Always `embedding`.
    #[schema(example = "embedding")]
    object: &'static str,
    /// Which image of the request.
    index: usize,
    /// The vector.
    embedding: Floats,
}

/// What the model has seen.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiUsage {
    /// Tokens of all images: patches, CLS and registers.
    #[schema(example = 257)]
    prompt_tokens: usize,
    /// The same: nothing is written.
    #[schema(example = 257)]
    total_tokens: usize,
}

/// What OpenAI's clients send beside images and our own options.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OpenAiOptions {
    model: Option<String>,
    dimensions: Option<usize>,
    encoding_format: EncodingFormat,
    /// Whom the caller asks for; nothing here depends on it.
    #[allow(dead_code, reason = "it is taken, so that it is no unknown option")]
    user: Option<String>,
}

/// Embed images, for OpenAI's clients.
///
/// `input` is an image in base64 or as a `data:` URI, or a list of them. One image that cannot be
/// used fails the request, as this shape has no place for an error of one.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "features",
    request_body = InputJson,
    responses((status = 200, description = "The embeddings.", body = OpenAiList<'_>), FeatureProblems)
)]
pub(crate) async fn create_openai_embedding(
    State(service): State<Service>,
    request: Result<InputRequest>,
) -> Result<Response, Response> {
    let answer = async { embed(&service, request?).await };
    answer.await.map_err(|error| openai_response(&error))
}

async fn embed(service: &Service, request: InputRequest) -> Result<Response> {
    let InputRequest {
        images,
        mut options,
        admission: _admission,
    } = request;
    let OpenAiOptions {
        model,
        dimensions,
        encoding_format,
        user: _,
    } = options.take()?;
    let image = options.take_image()?;
    let embed: EmbedOptions = options.take()?;
    options.finish()?;
    let engine = service.engine();
    let spec = engine.spec();
    if let Some(other) = model.filter(|model| *model != spec.name) {
        let detail = format!(
            "there is no model {other:?} here; this server runs {:?}",
            spec.name
        );
        return Err(Error::new(Kind::NotFound, detail));
    }
    embed.check(spec)?;
    let dim = embed.dim(spec);
    if dimensions.is_some_and(|wanted| wanted != dim) {
        return Err(Error::option(
            "dimensions",
            format!("the embeddings have {dim} dimensions and are not shortened"),
        ));
    }
    if embed.tokens {
        return Err(Error::option(
            "tokens",
            "this shape has no place for tokens; ask /v1/embed",
        ));
    }

    let Timed {
        value: embeddings,
        stages,
    } = service.extractor.embed(images, &image, &embed).await?;
    let several = embeddings.len() > 1;
    let mut tokens = 0;
    let mut data = Vec::with_capacity(embeddings.len());
    for (index, embedding) in embeddings.into_iter().enumerate() {
        let embedding = embedding.map_err(|error| {
            if several {
                error.context(format_args!("input {index}"))
            } else {
                error
            }
        })?;
        let Grid { width, height } = embedding.grid;
        tokens += width * height + 1 + spec.architecture.registers;
        let embedding = Floats::new(embedding.vector, encoding_format);
        data.push(OpenAiEmbedding {
            object: "embedding",
            index,
            embedding,
        });
    }
    let usage = OpenAiUsage {
        prompt_tokens: tokens,
        total_tokens: tokens,
    };
    let list = OpenAiList {
        object: "list",
        data,
        model: &spec.name,
        usage,
    };
    let body = serde_json::to_vec(&list).map_err(|error| Error::internal(error.to_string()))?;
    Ok(answer(Representation::Json, body, &stages))
}
