//! The use cases: features and maps of images, galleries, PCA bases and linear probes. This module
//! does not know HTTP.
//!
//! [`Extractor`] needs only a model. [`Galleries`], [`Bases`], [`Probes`], [`Banks`] and
//! [`Segmenters`] each wrap a gallery store, and take a [`ModelChoice`] as an argument, because
//! stored features are compared only with those of the model that made them. [`Service`] combines
//! them.
//!
//! # Errors
//! All methods return these errors, and their documentation names only others:
//! * `Kind::InvalidOption` and `Kind::LimitExceeded` for an option with an invalid value;
//! * `Kind::NotFound` for an unknown gallery, item, basis or probe;
//! * `Kind::Conflict` if stored features are of a model that is not served, of another one than the
//!   request names, or were made with other options than those of the request;
//! * the error of the first image that cannot be used, with its index, if the images of a request
//!   have one joint result.

mod anomaly;
mod attention;
mod audit;
mod bases;
mod basis_images;
mod binding;
mod cache;
mod cached_features;
mod classify;
mod decoding_budget;
mod embed;
mod extractor;
mod fitting;
mod galleries;
mod gallery_documents;
mod gallery_map;
mod head_stats;
mod images;
mod insert;
mod jobs;
mod loading;
mod maps;
mod matching;
mod model_source;
mod models;
mod objects;
mod pca;
mod photograph;
mod probes;
mod query;
mod read_shares;
mod search;
mod segmenters;
#[allow(clippy::module_inception, reason = "it defines `Service`")]
mod service;
mod several;
mod similarity;
mod stages;

pub use self::{
    anomaly::{
        AnomalyForms, AnomalyPicture, Augment, BankInfo, BankOptions, Banks, FoundDefect,
        ImageAnomaly,
    },
    attention::{AttentionMaps, AttentionOptions},
    audit::{
        AuditReport, AuditSet, Audits, ClusterOfImages, Duplicates, MislabeledImage, OutlierImage,
        StoredAudit,
    },
    bases::{Bases, BasisInfo, StoredBasis},
    basis_images::BasisImages,
    binding::{InputOptions, VectorOptions},
    cache::CacheBytes,
    classify::{Classification, VoteOptions},
    embed::{EmbedOptions, Embedding},
    extractor::Extractor,
    fitting::Fitting,
    galleries::{Galleries, GalleryLimits, Page},
    gallery_map::{GalleryMap, GalleryMaps, MappedItem},
    head_stats::ImageHeadStats,
    images::{Decoding, ImageLimits, ImageOptions},
    insert::{NewEntry, OnConflict},
    jobs::{Job, JobState},
    loading::Loaded,
    maps::{MapFormat, MapSizes, Rendered},
    matching::{MatchOptions, MatchedImages, MatchedPoints},
    model_source::{LoadPlan, ModelSource},
    models::{ModelChoice, Models},
    objects::{FoundObject, ImageObjects, ObjectForms, ObjectOptions, ObjectPicture},
    pca::{PCA_COMPONENTS, PcaAnswer, PcaOptions},
    probes::{Origin, ProbeFeatures, ProbePlan, Probes, StoredProbe},
    query::QueryInput,
    read_shares::on_behalf_of,
    search::{Answers, NeighborQuery, SearchOptions},
    segmenters::{
        ImageSegments, LabeledPatches, MaskedImage, Segment, SegmentForms, SegmentPicture,
        Segmenter, SegmenterInfo, SegmenterOptions, Segmenters,
    },
    service::Service,
    several::{SeveralFeatures, SeveralOptions},
    similarity::{SimilarityMaps, SimilarityOptions},
    stages::{Stages, Timed},
};
