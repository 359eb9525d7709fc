//! Signatures of deliveries by the Standard Webhooks specification.
//!
//! A signature is the HMAC-SHA256 of `ID.TIMESTAMP.BODY` with a shared secret, in Base64 after `v1,`. While a secret is
//! rotated, the header contains a signature for each secret, separated by spaces. See
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The prefix of a secret in its text form.
const PREFIX: &str = "whsec_";

/// The lengths of a secret in bytes that the specification allows.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secrets that sign a delivery. Not `Debug`, because it must not be shown.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// Reads a file with one secret on each line. No message contains a secret.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read the secret file {}: {}", file.display(), error.kind()))?;
        let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
        let secrets = lines.map(|(number, line)| {
            parse(line).ok_or_else(|| {
                format!(
                    "line {number} of the secret file {} is not a secret; write {PREFIX} and 24 to 64 bytes in Base64",
                    file.display()
                )
            })
        });
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() {
            return Err(format!("the secret file {} contains no secret", file.display()));
        }
        Ok(Self(secrets))
    }

    /// Returns the value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let sign = |secret: &Vec<u8>| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("an HMAC takes keys of any length");
            mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

fn parse(line: &str) -> Option<Vec<u8>> {
    let secret = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
    SECRET_BYTES.contains(&secret.len()).then_some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(text: &str) -> Result<Secrets, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, text).unwrap();
        Secrets::read(&file)
    }

    /// The secret of the specification's example.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let secrets = secrets(SECRET).unwrap();
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_of_the_file_signs() {
        let both = secrets(&format!("{SECRET}\n\nwhsec_{}\n", STANDARD.encode([7; 32]))).unwrap();
        let signature = both.sign("id", 1, "{}");
        let (first, second) = signature.split_once(' ').unwrap();
        assert_eq!(first, secrets(SECRET).unwrap().sign("id", 1, "{}"));
        assert!(second.starts_with("v1,") && second != first);
    }

    #[test]
    fn an_unusable_file_is_named_and_its_content_is_not_shown() {
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        for (text, part) in [
            ("", "contains no secret"),
            ("hunter2", "line 1"),
            (&*format!("{SECRET}\nwhsec_hunter2"), "line 2"),
            (&*short, "24 to 64 bytes"),
        ] {
            let error = secrets(text).err().unwrap();
            assert!(error.contains(part) && !error.contains("hunter") && !error.contains("whsec_M"), "{error}");
        }
        assert!(Secrets::read(Path::new("/nonexistent")).err().unwrap().contains("cannot read the secret file"));
    }
}
