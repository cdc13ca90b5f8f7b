"""The model registry: its form, and the built-in models."""

from pages.markdown import code, page, table
from shoal.spec.registry import RESERVED, builtin

REGISTRY = """\
A model registry is a YAML file. Each key names one model. Give the file to `shoal up --local` with `--models FILE`,
and choose a key with `--model KEY`. In `shoal.yaml` these are `model.registry` and `model.name`; in a head's
folder for containers, the file `models.yaml` and `MODEL_NAME` in `.env`. The keys of the file come on top of the
built-in ones; an equal key replaces one.

```yaml
my-model:
  model: /data/models/my-model
  description: what people read
  max-model-len: 4096
  dtype: bfloat16
```
"""

FORMS = {
    "/a/folder": "A folder with `config.json`, a tokenizer and `*.safetensors`. It is looked at before the start. "
    "Write its whole path.",
    "~/a/folder": "The same, below your home folder.",
    "package:MODULE/FILE.gguf": "Weights that an installed Python package carries. They are converted on first use, "
    "and kept in the cache folder.",
}

RULES = """\
- An option is written as vLLM's own, in kebab-case and without the dashes in front.
- `true` becomes the bare option, `false` its `--no-` form. All else is handed on as it was written.
- A value is one word, number or text. Structured options are JSON in quotes.
- `kv-cache-memory-bytes` is 512 MiB for each rank where the registry does not set it.
- Wrong entries are refused before anything starts, with file and line. vLLM itself refuses an option that it does not
  know; the start then ends with vLLM's words.
"""


def models() -> str:
    """The registry's form, and the built-in models."""
    return page(
        "Model registry",
        REGISTRY,
        "## Fields\n",
        table(
            ("field", "meaning"),
            (
                (code("model"), "required: where the model is, in one of the forms below"),
                (code("description"), "a sentence for people"),
                ("any other", "an option of vLLM's server"),
            ),
        ),
        "## Forms of `model`\n",
        table(("form", "meaning"), ((code(form), meaning) for form, meaning in FORMS.items())),
        "## Options\n",
        RULES,
        "These are decided by shoal and refused in a registry: " + ", ".join(map(code, sorted(RESERVED))) + ".\n",
        "## Built-in models\n",
        table(
            ("key", "model", "description", "options"),
            (
                (
                    code(entry.key),
                    code(entry.model),
                    entry.description,
                    ", ".join(code(f"{name}: {value}") for name, value in entry.options.items()),
                )
                for entry in builtin().values()
            ),
        ),
    )
