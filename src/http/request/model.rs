//! The option `model`.

use serde::Deserialize;
use utoipa::IntoParams;

use super::options::Options;
use crate::{
    error::Result,
    gallery::GalleryName,
    service::{ModelChoice, Service},
};

/// The model that answers.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ModelParams {
    /// Name of a served model. The default is the first of `GET /v1/models`; for a gallery and
    /// for what is fitted or trained it is the model that made its features, and another one is an
    /// error with status 409.
    #[param(example = "dinov2-small")]
    model: Option<String>,
}

impl Options {
    /// Takes the option `model`.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::error::Kind::NotFound) if no served model has the name.
    pub(crate) fn choose_model(&mut self, service: &Service) -> Result<ModelChoice> {
        let ModelParams { model } = self.take()?;
        service.choose(model.as_deref())
    }

    /// Takes the option `model` of a request that reads or deletes what is in a gallery, which
    /// needs no model. A named one must still be that of the gallery.
    pub(crate) async fn check_model_of(
        &mut self,
        service: &Service,
        gallery: &GalleryName,
    ) -> Result<()> {
        let model = self.choose_model(service)?;
        if model.is_named() {
            let info = service
                .galleries()?
                .store()
                .require_gallery(gallery)
                .await?;
            model.allow(
                &info.binding.model,
                format_args!("the gallery `{gallery}` holds"),
            )?;
        }
        Ok(())
    }
}
