"""Chats: what may be asked, who answers it, and the stream between them. Knows workers by address, no engine."""
