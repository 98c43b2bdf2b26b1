"""Settings of the site. Everything that differs between machines comes from the environment (see .env.example);
what a trader changes while trading (switches, thresholds) is in LIVE_SETTINGS and edited in the admin."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from unfold.contrib.constance.settings import UNFOLD_CONSTANCE_ADDITIONAL_FIELDS

from positions.words import ExitReason, ExternalMode, InstructionKind, Outcome, RuleNoteKind, VolumeReference
from tradingsite import logs
from tradingsite.environment import (
    BadEnvironment,
    env_bool,
    env_list,
    env_number,
    env_str,
    installation_id,
    installation_secret,
    read_env_file,
    state_folder,
)

BASE_DIR = Path(__file__).resolve().parent.parent
read_env_file(BASE_DIR / ".env")
VAR_DIR = state_folder(Path(env_str("VAR_DIR", str(BASE_DIR / "var"))))

DEBUG = env_bool("DEBUG", False)
SECRET_KEY = env_str("SECRET_KEY", "") or installation_secret(VAR_DIR / "secret_key")
INSTALLATION = installation_id(VAR_DIR / "installation")
MODEL_SIGNING_KEY = env_str("MODEL_SIGNING_KEY", "") or SECRET_KEY
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS", "")

HTTPS = env_bool("HTTPS", False)
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$", "^metrics$"]  # asked from beside the process, without TLS
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.constance",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "tradingsite.apps.LiveSettingsConfig",
    "django_q",
    "django_filters",
    "rest_framework",
    "knox",
    "axes",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "positions",
    "ml",
    "reports",
    "tradingsite",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

# Nothing is loaded from elsewhere and nothing is sent there. Unfold's Alpine evaluates expressions of its templates,
# which takes unsafe-eval; its templates and the daily report hold scripts and styles of their own.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, UNSAFE_INLINE, UNSAFE_EVAL],
        "style-src": [SELF, UNSAFE_INLINE],
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

ROOT_URLCONF = "tradingsite.urls"
WSGI_APPLICATION = "tradingsite.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "tradingsite" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


#: Seconds (`tcp_user_timeout`: milliseconds) after which a server whose machine or network is gone counts as gone.
_PROMPT = {
    "connect_timeout": 3,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
DATABASE_URLS = "use sqlite:///FILE or postgres://USER:PASSWORD@HOST:PORT/NAME"


def database(url: str) -> dict[str, Any]:
    """One database's settings, tuned for its engine: WAL and short locks on SQLite, a pool on PostgreSQL.

    Raises BadEnvironment, without the URL (it may hold a password), for a URL of anything else.
    """
    try:
        config: dict[str, Any] = dict(dj_database_url.parse(url))
    except ValueError as error:
        raise BadEnvironment(f"DATABASE_URL is malformed; {DATABASE_URLS}") from error
    if config["ENGINE"].endswith("sqlite3"):
        config["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    elif config["ENGINE"].endswith("postgresql"):
        config["OPTIONS"] = {**_PROMPT, **config.get("OPTIONS", {})}
        if env_bool("DATABASE_POOL", True):
            config["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 8, "timeout": 3}
    else:
        raise BadEnvironment(f"DATABASE_URL names a database that is not supported; {DATABASE_URLS}")
    return config


DATABASES = {"default": database(env_str("DATABASE_URL", f"sqlite:///{VAR_DIR / 'db.sqlite3'}"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# How often a password may be guessed: django-axes counts in the database (tradingsite/signing_in.py).
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # it ends in time, however often somebody tries meanwhile
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "tradingsite.signing_in.refused"
AXES_DISABLE_ACCESS_LOG = True  # who signed in when is in Django's own table of users
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

LANGUAGE_CODE = "en-us"
USE_TZ = True
TIME_ZONE = "America/New_York"  # what people read; everything stored is UTC
USE_I18N = False
FORMAT_MODULE_PATH = ["tradingsite.formats"]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

# Served straight out of the installed packages: nothing to collect first, nothing fetched from elsewhere. The path of
# plotly.js is looked up without importing plotly.
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
_plotly = find_spec("plotly")
STATICFILES_DIRS = (
    [("plotly", Path(_plotly.origin).parent / "package_data")] if _plotly is not None and _plotly.origin else []
)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["tradingsite.kit.permissions.ViewPermissionRequired"],
    "DEFAULT_PAGINATION_CLASS": "tradingsite.kit.pagination.NewestFirstPagination",
    "DEFAULT_FILTER_BACKENDS": ["tradingsite.kit.filters.RowFilterBackend"],
    "DEFAULT_THROTTLE_CLASSES": ["tradingsite.kit.throttling.ReadThrottle"],
    "NUM_PROXIES": 0,  # what a caller writes into X-Forwarded-For is not believed
    "URL_FORMAT_OVERRIDE": None,
    "EXCEPTION_HANDLER": "tradingsite.kit.problems.explain",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PARSER_CLASSES": ["tradingsite.kit.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "PAGE_SIZE": 100,
}
API_READS_PER_MINUTE = env_number("API_READS_PER_MINUTE", 600)
API_ACTS_PER_MINUTE = env_number("API_ACTS_PER_MINUTE", 60)
SPECTACULAR_SETTINGS = {
    "TITLE": "Trading site API",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},  # None: swagger.io is not asked
    "SERVE_PERMISSIONS": ["tradingsite.kit.permissions.AnyPermissionRequired"],
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "tradingsite.kit.schema.forget_the_database",
        "tradingsite.kit.schema.add_problems",
    ],
    # What several columns have under names of their own:
    "ENUM_NAME_OVERRIDES": {
        "ExitReasonEnum": list(ExitReason),
        "OutcomeEnum": list(Outcome),
        "RuleNoteKindEnum": list(RuleNoteKind),
        "InstructionKindEnum": list(InstructionKind),
    },
}

# retry > timeout > the longest task; a failed task is not run again by itself and missed runs are not caught up:
# a training or an order task must never run twice because a worker died.
Q_CLUSTER: dict[str, Any] = {
    "name": "tradingsite",
    "label": "Schedules and tasks",
    "orm": "default",
    "workers": 2,
    "timeout": 1800,
    "retry": 2100,
    "max_attempts": 1,
    "ack_failures": True,
    "catch_up": False,
    "poll": 1,
    "save_limit": 1000,
    "time_zone": "America/New_York",
}

# Which trades the site looks at unless told otherwise, and which strategy makes the signals.
BOOK = env_str("BOOK", "simulated")
STRATEGY = env_str("STRATEGY", "positions.strategy.VwapCross")
# Where news goes: Apprise URLs, separated by commas. They hold passwords: shown and logged nowhere.
NOTIFY_URLS = env_str("NOTIFY_URLS", "")
ALPACA_API_KEY = env_str("ALPACA_API_KEY", "")
ALPACA_SECRET_KEY = env_str("ALPACA_SECRET_KEY", "")
ALPACA_FEED = env_str("ALPACA_FEED", "iex")
ALPACA_DATA_URL = env_str("ALPACA_DATA_URL", "")
ALPACA_TRADING_URL = env_str("ALPACA_TRADING_URL", "")
ALPACA_LIVE = env_str("ALPACA_LIVE", "")
ALPACA_CONNECT_TIMEOUT = env_number("ALPACA_CONNECT_TIMEOUT", 3.0)
ALPACA_READ_TIMEOUT = env_number("ALPACA_READ_TIMEOUT", 5.0)
ALPACA_REQUESTS_PER_MINUTE = env_number("ALPACA_REQUESTS_PER_MINUTE", 200)

LIVE_SETTINGS: dict[str, tuple[Any, str, type | str]] = {
    # name: (default, help with unit and range, type)
    "LOW_VOLUME_EXIT": (True, "Exit when volume dries up (rule low_volume).", bool),
    "LOW_VOLUME_FRACTION": (0.5, "low_volume: exit below this fraction of the reference's volume, 0 to 1.", "fraction"),
    "LOW_VOLUME_BARS": (5, "low_volume: number of completed bars averaged, in the reference and now, 1 to 30.", "bars"),
    "LOW_VOLUME_REFERENCE": (
        "entry",
        "low_volume compares with: entry, the volume at the trade's entry; profile, the same minutes of past sessions.",
        "volume_reference",
    ),
    "TIME_LIMIT_EXIT": (True, "Exit a trade that shows no profit in time (rule time_limit).", bool),
    "TIME_LIMIT_MINUTES": (15.0, "time_limit: minutes since entry, above 0.", "positive"),
    "MOMENTUM_EXIT": (True, "Exit when MACD crosses its signal line against the trade (rule momentum_reversal).", bool),
    "BREAKEVEN": (True, "Move the stop to breakeven once the trade has earned its risk.", bool),
    "BREAKEVEN_AT_R": (1.0, "breakeven: unrealised profit in R that moves the stop, above 0.", "positive"),
    "FLATTEN_MINUTES": (
        5.0,
        "session_close: minutes before the session's close when every trade is closed, 0 to 60.",
        "minutes",
    ),
    "COST_PER_SHARE": (
        0.01,
        "Cost in dollars per share and side in breakeven, time_limit and simulated fills.",
        "dollars",
    ),
    "RISK_PER_TRADE": (
        0.005,
        "Fraction of the account's equity risked between entry and stop, 0 to 0.05; at 0 every signal is too_small.",
        "risk",
    ),
    "MAX_NOTIONAL": (0.2, "Largest position as a fraction of the account's equity, 0 to 4.", "leverage"),
    "MAX_OPEN_POSITIONS": (10, "protection: entries are blocked at this number of open trades.", "count"),
    "DAILY_LOSS_LIMIT": (
        0.03,
        "protection: entries are blocked once the session lost this fraction of equity.",
        "fraction",
    ),
    "MAX_ORDERS_PER_MINUTE": (
        60,
        "protection: entries are blocked while this many orders of any kind were sent within a minute.",
        "count",
    ),
    "COOLDOWN_LOSSES": (4, "protection: entries pause after this many losses in a row; 0 is never.", "losses"),
    "COOLDOWN_MINUTES": (30.0, "protection: minutes from the last of these losses until entries go on.", "positive"),
    "EXTERNAL_POSITIONS": (
        "show",
        "Positions at the broker that are not ours. show: list them. protect: set a stop. manage: exit rules too.",
        "external",
    ),
    "PREDICTION_MODE": (
        "shadow",
        "off: no predictions. shadow: predict and log. filter: also skip what the model would skip.",
        str,
    ),
    "AUTO_PROMOTE": (
        False,
        "After training, promote the candidate that shadowed 200 closed trades no worse than the champion.",
        bool,
    ),
}
LIVE_UNITS = {
    "LOW_VOLUME_FRACTION": "fraction",
    "LOW_VOLUME_BARS": "bars",
    "TIME_LIMIT_MINUTES": "minutes",
    "BREAKEVEN_AT_R": "R",
    "FLATTEN_MINUTES": "minutes",
    "COST_PER_SHARE": "dollars",
    "RISK_PER_TRADE": "fraction of equity",
    "MAX_NOTIONAL": "fraction of equity",
    "MAX_OPEN_POSITIONS": "trades",
    "DAILY_LOSS_LIMIT": "fraction of equity",
    "MAX_ORDERS_PER_MINUTE": "orders",
    "COOLDOWN_LOSSES": "trades",
    "COOLDOWN_MINUTES": "minutes",
}
CONSTANCE_BACKEND = "constance.backends.database.DatabaseBackend"
CONSTANCE_SUPERUSER_ONLY = False  # the permissions of constance decide, as of every table
CONSTANCE_CONFIG = LIVE_SETTINGS
CONSTANCE_CONFIG_FIELDSETS = (
    (
        "Early exits",
        [
            "LOW_VOLUME_EXIT",
            "LOW_VOLUME_FRACTION",
            "LOW_VOLUME_BARS",
            "LOW_VOLUME_REFERENCE",
            "TIME_LIMIT_EXIT",
            "TIME_LIMIT_MINUTES",
            "MOMENTUM_EXIT",
            "FLATTEN_MINUTES",
        ],
    ),
    ("Breakeven", ["BREAKEVEN", "BREAKEVEN_AT_R", "COST_PER_SHARE"]),
    (
        "Size and protections",
        [
            "RISK_PER_TRADE",
            "MAX_NOTIONAL",
            "MAX_OPEN_POSITIONS",
            "DAILY_LOSS_LIMIT",
            "MAX_ORDERS_PER_MINUTE",
            "COOLDOWN_LOSSES",
            "COOLDOWN_MINUTES",
            "EXTERNAL_POSITIONS",
        ],
    ),
    ("Predictions", ["PREDICTION_MODE", "AUTO_PROMOTE"]),
)


def _number(kind: type, low: float, high: float) -> list[Any]:
    """A form field of unfold's look that refuses what lies outside its range."""
    field, look = UNFOLD_CONSTANCE_ADDITIONAL_FIELDS[kind]
    return [field, {**look, "min_value": low, "max_value": high}]


def _choice(*words: str) -> list[Any]:
    choices = [(str(word), str(word)) for word in words]
    return ["django.forms.ChoiceField", {"choices": choices, "widget": "unfold.widgets.UnfoldAdminSelectWidget"}]


CONSTANCE_ADDITIONAL_FIELDS = {
    **UNFOLD_CONSTANCE_ADDITIONAL_FIELDS,
    "fraction": _number(float, 0, 1),
    "risk": _number(float, 0, 0.05),
    "leverage": _number(float, 0, 4),
    "dollars": _number(float, 0, 10),
    "minutes": _number(float, 0, 60),
    "positive": _number(float, 0.01, 1000),
    "bars": _number(int, 1, 30),
    "count": _number(int, 1, 1000),
    "losses": _number(int, 0, 1000),
    "external": _choice(*ExternalMode),
    "volume_reference": _choice(*VolumeReference),
    str: _choice("off", "shadow", "filter"),
}

UNFOLD = {
    "SITE_TITLE": "Trading site",
    "SITE_HEADER": "Trading site",
    "SITE_SYMBOL": "candlestick_chart",
    "SITE_FAVICONS": [{"rel": "icon", "href": "data:,"}],
    "STYLES": ["/static/tradingsite/site.css"],
    "SITE_URL": None,
    "SHOW_HISTORY": False,
    "LOGIN": {"form": "tradingsite.signing_in.SignInForm"},
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "tradingsite.dashboard.dashboard",
    "SIDEBAR": {"navigation": "tradingsite.navigation.navigation"},
}

DEFAULT_EXCEPTION_REPORTER_FILTER = "tradingsite.privacy.SecretsHidden"
LOGGING = logs.configure(env_str("LOG_LEVEL", "WARNING"))
