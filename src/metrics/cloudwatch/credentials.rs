//! Where AWS credentials come from: the template's Secret, then as AWS's own clients look for them ("Standardized credential
//! providers"): variables, a web identity (IRSA), the container's endpoint (EKS Pod Identity, ECS), the instance's.
//! Profiles in files are not read: a pod has none.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use roxmltree::Document;
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::super::Environment;
use super::super::request::{Ask, Whose, http_url, sensitive};
use super::{LocalName as _, domain};

/// An access key.
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: String,
    /// Of temporary credentials.
    pub(super) token: Option<String>,
}

/// As the endpoints of containers and instances answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: Option<String>,
}

impl From<Answer> for Credentials {
    fn from(answer: Answer) -> Self {
        Self { id: answer.access_key_id, secret: answer.secret_access_key, token: answer.token }
    }
}

/// The key of the Secret that holds an access key's id.
const SECRET_KEY: &str = "aws_access_key_id";

/// Whose credentials [`find`] finds: the template's when its Secret has a key, else this machine's.
pub(super) fn whose(ask: &Ask<'_>) -> Whose {
    if ask.optional_secret(SECRET_KEY).is_some() { Whose::Template } else { Whose::Machine }
}

/// The first that there are.
pub(super) async fn find(ask: &Ask<'_>, environment: &Environment, region: &str) -> Result<Credentials, String> {
    if let Some(id) = ask.optional_secret(SECRET_KEY) {
        let secret = ask.secret("aws_secret_access_key")?.to_owned();
        let token = ask.optional_secret("aws_session_token").map(str::to_owned);
        return Ok(Credentials { id: id.to_owned(), secret, token });
    }
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        return Ok(Credentials { id, secret, token: variable("AWS_SESSION_TOKEN") });
    }
    if let (Some(role), Some(file)) = (variable("AWS_ROLE_ARN"), variable("AWS_WEB_IDENTITY_TOKEN_FILE")) {
        let endpoint = variable("AWS_ENDPOINT_URL_STS");
        let endpoint = endpoint.unwrap_or_else(|| format!("https://sts.{region}.{}", domain(region)));
        return web_identity(ask, &endpoint, &role, &file).await;
    }
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let container = relative.map(|path| format!("http://169.254.170.2{path}"));
    if let Some(url) = container.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(read(&file)?),
            None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        return container_endpoint(ask, &url, token.as_deref()).await;
    }
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err("there are no AWS credentials: give the template a Secret with aws_access_key_id and \
                    aws_secret_access_key, or the pod a role"
            .to_owned());
    }
    let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| "http://169.254.169.254".to_owned());
    instance(ask, base.trim_end_matches('/'))
        .await
        .map_err(|error| format!("there are no AWS credentials: asking the instance: {error}"))
}

fn read(file: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("reading {file}: {error}"))?;
    Ok(text.trim().to_owned())
}

/// `AssumeRoleWithWebIdentity` of the Security Token Service, which needs no signature.
async fn web_identity(ask: &Ask<'_>, endpoint: &str, role: &str, file: &str) -> Result<Credentials, String> {
    let form = Serializer::new(String::new())
        .append_pair("Action", "AssumeRoleWithWebIdentity")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", role)
        .append_pair("RoleSessionName", "serin")
        .append_pair("WebIdentityToken", &read(file)?)
        .finish();
    let url = http_url(endpoint)?;
    let request = ask.client(&url)?.post(url).header(CONTENT_TYPE, super::signature::FORM).body(form);
    let (status, answer) = ask.send(request).await?;
    let text = String::from_utf8_lossy(&answer);
    if !status.is_success() {
        return Err(format!("taking the role {role}: {} {}", status.as_u16(), super::refusal(&text)));
    }
    let document = Document::parse(&text).map_err(|error| format!("taking the role {role}: {error}"))?;
    let found = |name: &str| {
        let node = document.descendants().find(|node| node.has_tag_name_local(name));
        node.and_then(|node| node.text()).map(str::to_owned)
    };
    let missing = || format!("taking the role {role}: the answer has no credentials");
    Ok(Credentials {
        id: found("AccessKeyId").ok_or_else(missing)?,
        secret: found("SecretAccessKey").ok_or_else(missing)?,
        token: found("SessionToken"),
    })
}

async fn container_endpoint(ask: &Ask<'_>, url: &str, token: Option<&str>) -> Result<Credentials, String> {
    let url = http_url(url)?;
    let mut request = ask.client(&url)?.get(url);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, sensitive(token)?);
    }
    let answer = ask.success(request).await.map_err(|error| format!("asking for the pod's credentials: {error}"))?;
    // The error would repeat a part of the answer.
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| "the pod's credentials cannot be read")?;
    Ok(answer.into())
}

/// The instance metadata service, version 2.
async fn instance(ask: &Ask<'_>, base: &str) -> Result<Credentials, String> {
    let url = http_url(&format!("{base}/latest/api/token"))?;
    let request = ask.client(&url)?.put(url).header("X-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = ask.success(request).await?;
    let token = String::from_utf8_lossy(&token).trim().to_owned();
    let get = async |path: &str| {
        let url = http_url(&format!("{base}/latest/meta-data/iam/security-credentials/{path}"))?;
        ask.success(ask.client(&url)?.get(url).header("X-aws-ec2-metadata-token", sensitive(&token)?)).await
    };
    let role = get("").await?;
    let role = String::from_utf8_lossy(&role).lines().next().unwrap_or_default().trim().to_owned();
    let answer: Answer =
        serde_json::from_slice(&get(&role).await?).map_err(|_| "its credentials cannot be read".to_owned())?;
    Ok(answer.into())
}
