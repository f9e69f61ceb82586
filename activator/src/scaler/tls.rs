//! The scaler's certificate as it is now. In: the files that the configuration names. Out: rustls' configuration for a connection.
//!
//! The files are looked at when a connection comes, not by a timer; KEDA's are ended every few minutes, so a certificate that was
//! renewed is shown soon enough, and an authority that is trusted no more is forgotten as soon.

use std::sync::Arc;

use liveedgecast_common::event;
use rustls::ServerConfig;

use crate::config::{Flaw, ScalerTls, Watched};

/// The configuration of the files as they are when a connection comes; of the last good ones, if they are not good.
pub struct Current {
    files: ScalerTls,
    watched: Vec<Watched>,
    config: Arc<ServerConfig>,
}

impl Current {
    /// Reads the files.
    ///
    /// # Errors
    /// They are not good.
    pub fn new(files: ScalerTls) -> Result<Self, Flaw> {
        let watched = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
        let watched = watched.into_iter().flatten().map(|path| Watched::new(path)).collect();
        let config = Arc::new(files.config()?);
        Ok(Self { files, watched, config })
    }

    /// Configuration for one connection.
    pub(super) fn config(&mut self) -> Arc<ServerConfig> {
        // Every one is looked at, or the second of two would be found changed the next time again.
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
