//! AWS Signature Version 4 ("Create a signed AWS API request") for a POST of a form.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::Sha256;
use url::Url;

use super::credentials::Credentials;
use crate::domain::sha256_hex;

/// Type of the body.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// The headers that sign a request: date, authorization, and the token of temporary credentials.
pub(super) fn sign(
    credentials: &Credentials,
    region: &str,
    service: &str,
    url: &Url,
    body: &str,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let time = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = time.get(..8).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut headers = vec![("content-type", FORM.to_owned()), ("host", host), ("x-amz-date", time.clone())];
    headers.extend(credentials.token.iter().map(|token| ("x-amz-security-token", token.clone())));
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let path = if url.path().is_empty() { "/" } else { url.path() };
    let canonical = format!("POST\n{path}\n\n{lines}\n{names}\n{}", sha256_hex(body.as_bytes()));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
    let key = format!("AWS4{}", credentials.secret);
    let key = [day, region, service, "aws4_request"].iter().fold(key.into_bytes(), |key, part| mac(&key, part));
    let signature: String = mac(&key, &text).iter().map(|byte| format!("{byte:02x}")).collect();
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", credentials.id);
    let mut out = vec![("x-amz-date", time), ("authorization", authorization)];
    out.extend(credentials.token.iter().map(|token| ("x-amz-security-token", token.clone())));
    out
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length is fine for HMAC.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request `post-x-www-form-urlencoded` of AWS's published test suite for Signature Version 4.
    #[test]
    fn signs_as_the_published_test_suite() {
        let credentials = Credentials {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            token: None,
        };
        let url = Url::parse("https://example.amazonaws.com/").unwrap();
        let now = "2015-08-30T12:36:00Z".parse().unwrap();
        let signed = sign(&credentials, "us-east-1", "service", &url, "Param1=value1", now);
        assert_eq!(signed[0], ("x-amz-date", "20150830T123600Z".to_owned()));
        assert_eq!(
            signed[1].1,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        );
    }
}
