//! From all sources to what is started: the settings, and the image of the type.

use std::path::Path;

use hearth_core::image::ImageRef;
use hearth_core::webservice::settings::SettingsError;
use hearth_core::webservice::{Settings, Types, WebType, Wishes};

use crate::exit::{Failure, Outcome};
use crate::progress;

/// The settings of the wishes, and the image that runs them. Asks a person at a terminal for a type that nothing names.
pub(crate) fn settle(mut wishes: Wishes, types: &Types, home: &Path) -> Outcome<(Settings, ImageRef)> {
    if wishes.kind.is_none() && wishes.backend.is_none_or(|b| b == hearth_core::webservice::Backend::Kubernetes) {
        wishes.kind = progress::ask(&format!("{types}\nWhich type? "));
    }
    let settings = wishes.settle().map_err(|e| match e {
        SettingsError::NoType => {
            let example = types.names().last().unwrap_or("TYPE");
            Failure::failed(format!("{e}; say one, as in `webservice {example} start`\n{types}"))
        }
        other => Failure::failed(other),
    })?;
    let (found, image) = types.find(&settings.kind).map_err(Failure::failed)?;
    if let Some(warning) = found.warning(&settings.kind) {
        progress::say(&warning);
    }
    check_home(found, &settings.kind, home)?;
    Ok((settings, image))
}

/// Refuses to start a type whose files are not there, before a pod fails for it.
fn check_home(found: &WebType, kind: &str, home: &Path) -> Outcome<()> {
    for path in found.requires() {
        let (there, what) = match path.strip_suffix('/') {
            Some(folder) => (home.join(folder).is_dir(), "folder"),
            None => (home.join(path).is_file(), "file"),
        };
        if !there {
            return Err(Failure::failed(format!(
                "the type '{kind}' needs the {what} ~/{}: make it, and start again",
                path.trim_end_matches('/')
            )));
        }
    }
    Ok(())
}
