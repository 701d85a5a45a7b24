//! `[[application]]` and `[[model]]` by themselves: what `clipper apply` reads and `clipper export`
//! writes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entries::{ApplicationConfig, ModelConfig};
use super::fault::{ConfigFaults, Fault, ValueOrigin};
use super::load::{base_dir, finish, read_file};
use super::validate::{self, Models};
use super::walk::Draft;

/// Both lists.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lists {
    #[serde(default, rename = "application", skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<ApplicationConfig>,
    #[serde(default, rename = "model", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelConfig>,
}

/// A value that TOML does not know.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be written as TOML: {0}")]
pub struct NotToml(#[from] toml::ser::Error);

impl Lists {
    /// Reads a file, or all `*.toml` of a folder. Their other tables are checked and passed over.
    /// Paths become absolute; a model's note of where its data came from stays as it was written.
    ///
    /// # Errors
    /// Everything that is wrong, in one go.
    pub fn read(path: &Path) -> Result<Self, ConfigFaults> {
        let files = files_of(path)?;
        let mut draft = Draft::default();
        for file in &files {
            read_file(file, &mut draft);
        }
        let folder = base_dir(files.first().map(PathBuf::as_path));
        validate::check(&mut draft, &folder, Models::SomeHere);
        let config = finish(draft, files.first().map(PathBuf::as_path))?;
        let folder = std::path::absolute(&folder).map_err(|error| unreadable(&folder, &error))?;
        let mut lists = Self { applications: config.applications, models: config.models };
        for model in &mut lists.models {
            let Some(container) = &mut model.container else { continue };
            model.model_data_path.get_or_insert(container.runtime().source());
            container.make_absolute(&folder);
        }
        Ok(lists)
    }

    /// As a file has them.
    ///
    /// # Errors
    /// A value that a file cannot hold.
    pub fn to_toml(&self) -> Result<String, NotToml> {
        Ok(toml::to_string(self)?)
    }
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, ConfigFaults> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = path.read_dir().map_err(|error| unreadable(path, &error))?;
    let files = entries.flatten().map(|entry| entry.path());
    let is_toml = |file: &PathBuf| file.extension().is_some_and(|kind| kind == "toml");
    let mut files: Vec<PathBuf> = files.filter(|file| is_toml(file) && file.is_file()).collect();
    files.sort();
    if files.is_empty() {
        return Err(unreadable(path, &"it has no *.toml"));
    }
    Ok(files)
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> ConfigFaults {
    let origin = ValueOrigin::File(path.to_owned(), None);
    let problem = format!("cannot be read: {why}");
    ConfigFaults(vec![Fault { origin, key: String::new(), problem }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_as_one_file_and_paths_become_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let model = "[[model]]\nname = \"m\"\nversion = \"1\"\ninput_type = \"doubles\"\n\
                     [model.container]\nruntime = \"onnx\"\npath = \"m.onnx\"\n";
        let app = |name: &str, model: &str| {
            format!(
                "[[application]]\nname = \"{name}\"\ninput_type = \"doubles\"\n\
                 default_output = \"0\"\nlatency_slo_micros = 1\nmodel = \"{model}\"\n"
            )
        };
        write("m.onnx", "");
        write("b.toml", model);
        write("a.toml", &app("a", "m"));
        // The server may have that one.
        write("c.toml", &app("c", "elsewhere"));
        let lists = Lists::read(folder.path()).unwrap();
        let names: Vec<&str> = lists.applications.iter().map(|app| app.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        let model = &lists.models[0];
        assert_eq!(model.model_data_path.as_deref(), Some("m.onnx"));
        let source = model.container.as_ref().unwrap().runtime().source();
        assert_eq!(source, folder.path().join("m.onnx").display().to_string());
        let text = lists.to_toml().unwrap();
        assert_eq!(toml::from_str::<Lists>(&text).unwrap(), lists);
        // The same application twice, in two files.
        write("d.toml", &app("a", "m"));
        let faults = Lists::read(folder.path()).unwrap_err().to_string();
        assert!(faults.contains("d.toml:2") && faults.contains("exists"), "{faults}");
        assert!(Lists::read(&folder.path().join("none")).is_err());
    }
}
