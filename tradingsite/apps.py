from django.apps import AppConfig


class TradingSiteConfig(AppConfig):
    name = "tradingsite"

    def ready(self) -> None:
        from tradingsite import checks  # noqa: F401  # importing registers them
