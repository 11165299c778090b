"""Turn YAML files and command lines into checked plain settings, and settings into objects.

Only this folder imports hydra and omegaconf.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "allowlist": [
            "allowed_as_reader",
            "allowed_plugins",
            "locate",
            "missing_plugins",
            "plugins_allowed",
            "plugins_in",
        ],
        "building": ["build", "build_encoder", "build_trusted"],
        "commands": ["entry_point"],
        "composition": ["check", "compose"],
        "headings": ["conf_dir", "read_heading"],
        "recognition": ["with_recognized"],
        "schemas": [
            "AnswerConfig",
            "AnswerTrainConfig",
            "AuditConfig",
            "CaptionConfig",
            "CaptionTrainConfig",
            "CompareConfig",
            "DemoConfig",
            "DistillConfig",
            "EvaluateAnswersConfig",
            "EvaluateConfig",
            "ExportConfig",
            "GroundConfig",
            "LanguageModelTrainConfig",
            "PrepareConfig",
            "ReportConfig",
            "SampleConfig",
            "ScoreConfig",
            "TrainConfig",
        ],
        "streams": ["quiet_pipe", "open_closed_streams"],
    },
)
