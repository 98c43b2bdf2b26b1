from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TradingSiteConfig(AppConfig):
    name = "tradingsite"

    def ready(self) -> None:
        from tradingsite import checks, signing_in  # noqa: F401  # importing registers them
        from tradingsite.groups import complete_groups

        post_migrate.connect(complete_groups, sender=self)
