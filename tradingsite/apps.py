from constance.apps import ConstanceConfig
from django.apps import AppConfig
from django.db.models.signals import post_migrate


class TradingSiteConfig(AppConfig):
    name = "tradingsite"
    verbose_name = "Site"
    default = True

    def ready(self) -> None:
        from tradingsite import checks, signing_in  # noqa: F401  # importing registers them
        from tradingsite.groups import complete_groups

        post_migrate.connect(complete_groups, sender=self)


class LiveSettingsConfig(ConstanceConfig):  # type: ignore[misc]  # constance has no types
    """constance under the name that the pages give it."""

    verbose_name = "Settings"
    default = False
