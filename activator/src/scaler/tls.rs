//! The present certificate of the scaler. In: the files that the configuration names. Out: rustls' configuration for a connection. Next:
//! `socket`, which makes the handshake.
//!
//! The files are checked when a connection comes, not by a timer. KEDA's connections are ended every few minutes, so a renewed certificate
//! is shown, and an authority that is no longer trusted is forgotten, within that time.

use std::sync::Arc;

use liveedgecast_common::event;
use rustls::ServerConfig;

use crate::config::{Flaw, ScalerTls, Watched};

/// The configuration of the files as they are when a connection comes; of the last good files, if the present ones are bad.
pub struct Current {
    files: ScalerTls,
    watched: Vec<Watched>,
    config: Arc<ServerConfig>,
}

impl Current {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read, or the certificate, key and authority in them cannot be used.
    pub fn new(files: ScalerTls) -> Result<Self, Flaw> {
        let watched = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
        let watched = watched.into_iter().flatten().map(|path| Watched::new(path)).collect();
        let config = Arc::new(files.config()?);
        Ok(Self { files, watched, config })
    }

    /// Configuration for one connection.
    pub(super) fn config(&mut self) -> Arc<ServerConfig> {
        // Every file is checked, or the second of two changed files would be found changed at the next connection again.
        if self.watched.iter_mut().fold(false, |before, file| file.is_another() | before) {
            match self.files.config() {
                Ok(config) => {
                    tracing::info!(
                        event = event::FILE_RELOADED,
                        setting = "SCALER_TLS_CERT_FILE",
                        "certificates of the scaler read again"
                    );
                    self.config = Arc::new(config);
                }
                Err(flaw) => {
                    tracing::error!(event = event::FILE_REJECTED, setting = flaw.setting, %flaw, "certificates of the scaler rejected, the last ones stay in force")
                }
            }
        }
        Arc::clone(&self.config)
    }
}
