//! The last gate of the log: whatever is logged, by us or by a library, passes here as text.

use std::io::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};

use tracing_subscriber::fmt::MakeWriter;

use crate::domain::Redactor;

/// What must not stand in the log, shared by those who learn it and by the log's writer.
#[derive(Debug, Clone, Default)]
pub struct LogSecrets(Arc<RwLock<Arc<Redactor>>>);

impl LogSecrets {
    /// From now on these are the secrets.
    pub fn learn(&self, redactor: Arc<Redactor>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = redactor;
    }

    fn redactor(&self) -> Arc<Redactor> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes log lines without secrets.
#[derive(Debug, Clone)]
pub struct Redacting<W> {
    inner: W,
    secrets: LogSecrets,
}

impl<W> Redacting<W> {
    /// Before `inner`.
    pub const fn new(inner: W, secrets: LogSecrets) -> Self {
        Self { inner, secrets }
    }
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Redacting<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { inner: self.inner.make_writer(), redactor: self.secrets.redactor() }
    }
}

/// One line of the log: the subscriber writes an event as a whole.
#[derive(Debug)]
pub struct Line<W> {
    inner: W,
    redactor: Arc<Redactor>,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(self.redactor.redact(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A place for the log.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_line_shows_a_secret_whoever_wrote_it() {
        let sink = Sink::default();
        let log = sink.0.clone();
        let secrets = LogSecrets::default();
        let writer = Redacting::new(move || sink.clone(), secrets.clone());
        for json in [false, true] {
            let builder = tracing_subscriber::fmt().with_writer(writer.clone()).with_ansi(false);
            let dispatch = if json {
                tracing::Dispatch::new(builder.json().finish())
            } else {
                tracing::Dispatch::new(builder.finish())
            };
            secrets.learn(Arc::new(Redactor::new(["quoted \"secret\" value".to_owned()])));
            tracing::dispatcher::with_default(&dispatch, || {
                let error = "the server said: quoted \"secret\" value";
                tracing::warn!(shown = %error, debug = ?error, "{error} and https://me:word@example.com/");
                secrets.learn(Arc::new(Redactor::new(["learned later".to_owned()])));
                tracing::info!("learned later");
            });
        }
        let text = String::from_utf8(std::mem::take(&mut log.lock().unwrap())).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert_eq!(text.matches("[redacted]").count(), 2 * 5, "{text}");
        assert!(!text.contains("quoted") && !text.contains("later") && !text.contains("word@"), "{text}");
    }
}
