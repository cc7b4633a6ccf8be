//! The files in a tool's home: the maintainer's template, and what the command remembers.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hearth_core::webservice::{MANIFEST_FILE, Manifest, TEMPLATE_FILE, TEMPLATE_FOLDERS, Template, Wishes};

use crate::exit::{Failure, Outcome};
use crate::progress;

/// The wishes of the template: the one that was named, or the one in the tool's home. None asks for nothing.
pub(crate) fn template(home: &Path, named: Option<&Path>) -> Outcome<Wishes> {
    let Some(file) = named.map(Path::to_owned).map_or_else(|| find_template(home), |file| Ok(Some(file)))? else {
        return Ok(Wishes::default());
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|e| Failure::failed(format!("failed to read your template file ({}): {e}", file.display())))?;
    let template = Template::parse(&text)
        .map_err(|e| Failure::failed(format!("Your template file ({}) contains errors:\n{e}", file.display())))?;
    for warning in template.warnings {
        progress::say(&format!("Your template file ({}) {warning}", file.display()));
    }
    Ok(template.wishes)
}

fn find_template(home: &Path) -> Outcome<Option<PathBuf>> {
    let files = TEMPLATE_FOLDERS.iter().map(|folder| home.join(folder).join(TEMPLATE_FILE));
    let mut found: Vec<PathBuf> = files.filter(|file| file.exists()).collect();
    if found.len() > 1 {
        let list: Vec<String> = found.iter().map(|file| format!("\n  {}", file.display())).collect();
        return Err(Failure::failed(format!("there is more than one template; keep one of:{}", list.concat())));
    }
    Ok(found.pop())
}

/// What is remembered. A damaged file is reported and forgotten: it must not keep a maintainer from starting or
/// stopping, and the next change writes a good one.
pub(crate) fn manifest(home: &Path) -> Outcome<Manifest> {
    let file = home.join(MANIFEST_FILE);
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Manifest::default()),
        Err(e) => {
            return Err(Failure::environment(format!(
                "failed to read {}: {e}; it must be a file that the tool can read",
                file.display()
            )));
        }
    };
    Ok(Manifest::parse(&text).unwrap_or_else(|e| {
        progress::say(&format!("{} is damaged and is not used ({e})", file.display()));
        Manifest::default()
    }))
}

/// Remembers `new` where it differs from `old`. The file is written beside and put in place by one rename; the name
/// beside is a fresh one, so that what an interrupted run left behind is in nobody's way.
pub(crate) fn save(home: &Path, old: &Manifest, new: &Manifest, now: jiff::Timestamp) -> Outcome<()> {
    if old == new {
        return Ok(());
    }
    let file = home.join(MANIFEST_FILE);
    let write = || {
        let mut beside = tempfile::Builder::new()
            .prefix(".service.manifest.")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(home)?;
        beside.write_all(new.render(now).as_bytes())?;
        beside.as_file().sync_all()?;
        beside.persist(&file)?;
        Ok(())
    };
    write().map_err(|e: std::io::Error| {
        Failure::environment(format!(
            "failed to write {}: {e}; the web service itself is not affected, but its settings are not remembered",
            file.display()
        ))
    })
}
