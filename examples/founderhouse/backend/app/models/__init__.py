from app.models.base import Base
from app.models.document import Document
from app.models.startup import Startup
from app.models.user import User

__all__ = ["Base", "Document", "Startup", "User"]
