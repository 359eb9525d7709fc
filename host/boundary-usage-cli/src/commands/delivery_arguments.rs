//! The arguments of a delivery, which `serve` and `deliver` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::arguments::{parse_retry, parse_wait};
use crate::delivery::DeliveryOptions;

/// Delivery of summaries.
#[derive(Args)]
pub(super) struct DeliveryArguments {
    /// URL to which each undelivered summary is sent with POST, as JSON, until the response is a 2xx.
    ///
    /// This includes the summaries of periods that were closed earlier. One replica at a time sends. Prefer the
    /// environment variable if the URL is a secret.
    #[arg(long, value_name = "URL", env = "BOUNDARY_USAGE_DELIVER", hide_env_values = true)]
    deliver: Option<String>,

    /// File with a token, which is sent as `Authorization: Bearer`. Each attempt reads the file again.
    #[arg(long, value_name = "FILE", requires = "deliver")]
    deliver_token_file: Option<PathBuf>,

    /// File with the secrets that sign each delivery by the Standard Webhooks specification.
    ///
    /// Each line is a secret, written as `whsec_` and Base64. While a secret is rotated, the file has the new one and
    /// the old one. Each attempt reads the file again.
    #[arg(long, value_name = "FILE", requires = "deliver")]
    deliver_secret_file: Option<PathBuf>,

    /// Time limit of one attempt. At most 1h.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_wait, requires = "deliver")]
    deliver_timeout: Duration,

    /// Wait after the first failure. At most 5m. It doubles with each further failure, up to 5m.
    ///
    /// Failures count for the destination and not for each summary, and all replicas share the wait. A `Retry-After`
    /// header extends the wait, up to 24h. After a 410 this process sends nothing until it is restarted.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_retry, requires = "deliver")]
    deliver_retry: Duration,
}

impl DeliveryArguments {
    /// Returns the options, or `None` without a URL.
    pub(super) fn options(&self) -> Option<DeliveryOptions> {
        Some(DeliveryOptions {
            url: self.deliver.clone()?,
            token_file: self.deliver_token_file.clone(),
            secret_file: self.deliver_secret_file.clone(),
            timeout: self.deliver_timeout,
            retry: self.deliver_retry,
        })
    }
}
