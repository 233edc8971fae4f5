//! Opens stores with the settings and credentials of the environment.

use std::{env, sync::Arc};

use object_store::{
    ObjectStore, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, http::HttpBuilder,
};

use super::failure::failed;
use crate::error::{Error, Kind, Result};

/// Opens the store of a scheme and host, such as `s3://bucket`.
pub(super) fn open_store(scheme: &str, base: &str) -> Result<Arc<dyn ObjectStore>> {
    // The process has one provider of cryptography. Fails if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" | "s3a" => {
            check_credentials()?;
            let builder = AmazonS3Builder::from_env().with_url(base);
            Arc::new(builder.build().map_err(|error| failed("settings", error))?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(base);
            Arc::new(builder.build().map_err(|error| failed("settings", error))?)
        }
        "az" | "abfs" | "abfss" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(base);
            Arc::new(builder.build().map_err(|error| failed("settings", error))?)
        }
        "http" | "https" => {
            let options = object_store::ClientOptions::new().with_allow_http(true);
            let builder = HttpBuilder::new()
                .with_url(base)
                .with_client_options(options);
            Arc::new(builder.build().map_err(|error| failed("settings", error))?)
        }
        _ => {
            let detail = "the address must begin with s3://, gs://, az://, https:// or http://";
            return Err(Error::new(Kind::InvalidOption, detail));
        }
    };
    Ok(store)
}

/// Rejects S3 without credentials, which the crate would look for at an address that only machines
/// of Amazon have.
fn check_credentials() -> Result<()> {
    let variables = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_METADATA_ENDPOINT",
        "AWS_SKIP_SIGNATURE",
    ];
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if variables.into_iter().any(is_set) {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidOption,
        "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for a public \
         bucket AWS_SKIP_SIGNATURE=true, or for the role of an EC2 machine \
         AWS_METADATA_ENDPOINT=http://169.254.169.254",
    ))
}
