//! The present certificates of a listener. In: the files that the configuration names. Out: rustls' configuration for a connection. Next:
//! `accept` and `scaler`, which make the handshakes.
//!
//! The files are checked when a connection comes or metrics are asked for, not by a timer: an idle activator wakes for nothing. KEDA's connections are ended every
//! few minutes, so a renewed certificate is shown, and an authority that is no longer trusted is forgotten, within that time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use liveedgecast_common::config::Watched;
use liveedgecast_common::encryption::Flaw;
use liveedgecast_common::event;
use rustls::ServerConfig;

use crate::config::TlsFiles;

/// The configuration of the files as they are when a connection comes; of the last good files, if the present ones are bad.
pub struct CurrentTls<F> {
    files: F,
    // A lock, because every connection's task asks; held while the files are looked at, and read if they have changed.
    present: Mutex<PresentFiles>,
}

struct PresentFiles {
    watched: Vec<Watched>,
    config: Arc<ServerConfig>,
    end: Option<u64>,
}

impl<F: TlsFiles> CurrentTls<F> {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or the certificate, key and authority in them cannot be used.
    pub fn new(files: F) -> Result<Self, Flaw> {
        let watched = files.paths().into_iter().map(Watched::new).collect();
        let (config, end) = (Arc::new(files.config()?), files.end());
        Ok(Self { files, present: Mutex::new(PresentFiles { watched, config, end }) })
    }

    /// Configuration for one connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.present().config)
    }

    /// Seconds since 1970 at which the first of the certificates expires, if that can be told.
    pub(crate) fn end(&self) -> Option<u64> {
        self.present().end
    }

    /// The files, read again if they have changed.
    fn present(&self) -> MutexGuard<'_, PresentFiles> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        // Every file is checked, or the second of two changed files would be found changed at the next connection again.
        if present.watched.iter_mut().fold(false, |before, file| file.is_another() | before) {
            match self.files.config() {
                Ok(config) => {
                    tracing::info!(event = event::FILE_RELOADED, setting = F::SETTING, "certificates read again");
                    (present.config, present.end) = (Arc::new(config), self.files.end());
                }
                Err(flaw) => {
                    tracing::error!(event = event::FILE_REJECTED, setting = flaw.setting, %flaw, "certificates rejected, the last ones stay in force");
                }
            }
        }
        present
    }
}
