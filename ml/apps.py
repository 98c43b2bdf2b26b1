from django.apps import AppConfig


class MLConfig(AppConfig):
    name = "ml"
    verbose_name = "Machine learning"
