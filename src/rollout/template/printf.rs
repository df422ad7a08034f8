//! Go's `fmt.Sprintf`, strict: where Go would print `%!d(string=x)` into the query, this is an error.

use super::value::Value;

/// Widest field: `%1000000d` is no query.
const WIDEST: usize = 1024;

/// What stands between `%` and the verb.
#[derive(Default)]
struct Spec {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats the values.
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| "-+ 0#".contains(*c)) {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => spec.sharp = true,
            }
        }
        spec.width = number(&mut chars)?;
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        let verb = chars.next().ok_or("the format ends with %")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("%{verb} has no argument"))?;
        out.push_str(&padded(&spec, one(&spec, verb, value)?, !matches!(value, Value::Text(_))));
    }
    match values.count() {
        0 => Ok(out),
        more => Err(format!("the format {format:?} has no verb for {more} of its arguments")),
    }
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().ok().filter(|width| *width <= WIDEST).map(Some).ok_or_else(|| format!("a width of {digits}"))
}

fn one(spec: &Spec, verb: char, value: &Value) -> Result<String, String> {
    let cut = |text: &str| spec.precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect());
    let signed = |text: String| match (text.starts_with('-'), spec.plus, spec.space) {
        (false, true, _) => format!("+{text}"),
        (false, false, true) => format!(" {text}"),
        _ => text,
    };
    let digits = spec.precision.unwrap_or(6);
    Ok(match (verb, value) {
        ('s' | 'v', Value::Text(text)) => cut(text),
        ('v', Value::Int(number)) => signed(number.to_string()),
        ('v', value) => value.text(),
        ('q', Value::Text(text)) => quoted(&cut(text)),
        ('d', Value::Int(number)) => signed(number.to_string()),
        ('x', Value::Int(number)) => format!("{}{:x}", hex_sign(spec, *number), number.unsigned_abs()),
        ('X', Value::Int(number)) => format!("{}{:X}", hex_sign(spec, *number), number.unsigned_abs()),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('o', Value::Int(number)) if *number >= 0 => format!("{number:o}"),
        ('b', Value::Int(number)) if *number >= 0 => format!("{number:b}"),
        ('c', Value::Int(number)) => u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').into(),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('f' | 'F', Value::Float(number)) => signed(format!("{number:.digits$}")),
        ('e', Value::Float(number)) => signed(exponent(&format!("{number:.digits$e}"))),
        ('g', Value::Float(number)) if spec.precision.is_none() => signed(crate::domain::format_float(*number)),
        ('T', value) => value.type_name().to_owned(),
        (verb, value) => return Err(format!("%{verb} cannot print a {}", value.type_name())),
    })
}

fn hex_sign(spec: &Spec, number: i64) -> &'static str {
    match (number < 0, spec.sharp) {
        (true, true) => "-0x",
        (true, false) => "-",
        (false, true) => "0x",
        (false, false) => "",
    }
}

/// Go has a sign and two digits in the exponent.
fn exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Go's `strconv.Quote`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() && u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn padded(spec: &Spec, text: String, is_number: bool) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        text
    } else if spec.minus {
        text + &" ".repeat(missing)
    } else if spec.zero && is_number {
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
        format!("{sign}{}{digits}", "0".repeat(missing))
    } else {
        " ".repeat(missing) + &text
    }
}
