//! What each kind of channel is sent. Source: Flagger `pkg/notifier/{slack,teams,discord,rocket,gchat}.go`, and its recorded
//! requests.

use serde_json::{Value, json};

use crate::ports::{AlertCall, AlertMessage};

/// The body for a channel.
pub(super) fn of(call: &AlertCall) -> Result<Value, String> {
    match call.type_.as_str() {
        "slack" | "discord" => Ok(slack(call, ["good", "danger"])),
        "rocket" => Ok(slack(call, ["#0076D7", "#FF0000"])),
        "msteams" => Ok(msteams(&call.message)),
        "gchat" => Ok(gchat(&call.message)),
        other => Err(format!("type `{other}` is not known, there is: slack, msteams, discord, rocket, gchat")),
    }
}

/// Slack's message with one attachment, which Discord and Rocket.Chat understand, too. Colours: of news and of failures.
fn slack(call: &AlertCall, [news, failure]: [&str; 2]) -> Value {
    let message = &call.message;
    // Slack reads `<!channel>` and links out of a text; the others show it as it is.
    let plain = |text: &str| if call.type_ == "slack" { escaped(text) } else { text.to_owned() };
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let fields =
        message.fields.iter().map(|(title, value)| json!({"title": title, "value": plain(value), "short": false}));
    json!({
        "channel": or(&call.channel, "general"),
        "username": or(&call.username, "flagger"),
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [{
            "color": if message.is_error { failure } else { news },
            "author_name": message.about,
            "text": plain(&message.text),
            "mrkdwn_in": ["text"],
            "fields": fields.collect::<Vec<_>>(),
        }],
    })
}

/// A MessageCard of Microsoft Teams.
fn msteams(message: &AlertMessage) -> Value {
    let facts = message.fields.iter().map(|(name, value)| json!({"name": name, "value": value}));
    json!({
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": if message.is_error { "FF0000" } else { "0076D7" },
        "summary": message.about,
        "sections": [{
            "activityTitle": message.text,
            "activitySubtitle": message.about,
            "facts": facts.collect::<Vec<_>>(),
        }],
    })
}

/// A card of Google Chat, each field in a section of its own.
fn gchat(message: &AlertMessage) -> Value {
    let strong = |text: &str| format!("<font color=#848484><strong>{}</strong></font>", escaped(text));
    let section = |text: String| json!({"widgets": [{"textParagraph": {"text": text}}]});
    let first = section(strong(&message.text));
    let fields = message.fields.iter();
    let fields = fields.map(|(title, value)| section(format!("{}<br>{}", escaped(title), strong(value))));
    json!({"cards": [{
        "header": {"title": "Flagger", "subtitle": message.about, "imageUrl": "https://flagger.app/favicon.png"},
        "sections": std::iter::once(first).chain(fields).collect::<Vec<_>>(),
    }]})
}

/// A text without markup (HTML, and Slack's "Formatting text for app surfaces"): both know these three only.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
