//! Access to Google's APIs: by the key of a service account (RFC 7523, "Using OAuth 2.0 for Server to Server
//! Applications"), or by the metadata server of the machine.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{CONTENT_TYPE, HeaderName};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded::Serializer;

use super::Environment;
use super::request::{Ask, Whose, http_url};

/// What is asked for.
const SCOPE: &str = "https://www.googleapis.com/auth/monitoring.read";
/// How long the proof of identity is good, in seconds: it is used at once.
const LIFE: i64 = 300;
/// The key of the Secret that holds a service account's.
const SECRET_KEY: &str = "serviceAccountKey";
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// A token and the project that it is for.
pub(super) struct Access {
    pub(super) project: String,
    pub(super) token: String,
}

/// A service account's key, as the console hands it out.
#[derive(Deserialize)]
struct Key {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: Option<String>,
    #[serde(default)]
    project_id: Option<String>,
    token_uri: String,
}

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

/// Whose access it is: the template's when its Secret has a key, else this machine's.
pub(super) fn whose(ask: &Ask<'_>) -> Whose {
    if ask.optional_secret(SECRET_KEY).is_some() { Whose::Template } else { Whose::Machine }
}

/// Access by the Secret's `serviceAccountKey`, else as this machine.
pub(super) async fn access(ask: &Ask<'_>, environment: &Environment) -> Result<Access, String> {
    let project = ask.optional_secret("project").map(|project| project.trim().to_owned());
    let Some(key) = ask.optional_secret(SECRET_KEY) else {
        return machine(ask, environment, project).await;
    };
    // The error would repeat a part of the key.
    let key: Key =
        serde_json::from_str(key).map_err(|_| "the key serviceAccountKey of the Secret is no service account key")?;
    let project = project.or_else(|| key.project_id.clone());
    let project = project.ok_or("the Secret has no key project")?;
    let assertion = assertion(&key, ask.clock.now().as_second())?;
    let url = http_url(&key.token_uri)?;
    let form = Serializer::new(String::new())
        .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
        .append_pair("assertion", &assertion)
        .finish();
    let request = ask.client(&url)?.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
    let token: Token = ask.json(request).await.map_err(|error| format!("asking for a token: {error}"))?;
    Ok(Access { project, token: token.access_token })
}

async fn machine(ask: &Ask<'_>, environment: &Environment, project: Option<String>) -> Result<Access, String> {
    let host = environment("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned());
    let base = format!("http://{host}/computeMetadata/v1");
    let get = async |path: &str| {
        let url = http_url(&format!("{base}{path}"))?;
        let request = ask.client(&url)?.get(url).header(FLAVOR, "Google");
        ask.success(request).await.map_err(|error| format!("asking the metadata server: {error}"))
    };
    let project = match project {
        Some(project) => project,
        None => String::from_utf8_lossy(&get("/project/project-id").await?).trim().to_owned(),
    };
    let token = get("/instance/service-accounts/default/token").await?;
    let token: Token = serde_json::from_slice(&token).map_err(|_| "the metadata server answers without a token")?;
    Ok(Access { project, token: token.access_token })
}

/// A signed JWT (RFC 7519) that says who asks for what.
fn assertion(key: &Key, now: i64) -> Result<String, String> {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": key.private_key_id});
    let claims = json!({
        "iss": key.client_email,
        "scope": SCOPE,
        "aud": key.token_uri,
        "iat": now,
        "exp": now.saturating_add(LIFE),
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(&claims));
    let wrong = "the private_key of the service account is no RSA key in PKCS #8";
    let pair = RsaKeyPair::from_pkcs8(&pem(&key.private_key).ok_or(wrong)?).map_err(|_| wrong)?;
    let mut signature = vec![0; pair.public().modulus_len()];
    let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
    signed.map_err(|_| "signing with the key of the service account failed")?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The content of a PEM block (RFC 7468).
fn pem(text: &str) -> Option<Vec<u8>> {
    let body = text.split("-----BEGIN PRIVATE KEY-----").nth(1)?.split("-----END PRIVATE KEY-----").next()?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}
