// Keeps chats in this browser only.
//
// With a key, a chat stays in the tab's storage and is forgotten with it. On a server without keys, the
// browser keeps it until the user deletes it. Each chat has its own entry, so that tabs don't overwrite
// each other's chats.

import { hasKey, isServerOpen, keylessName } from "../../lib/api.js";
import { compacted } from "./chats.js";

const IN_TAB = "lorikeet-chat-";
const IN_BROWSER = keylessName("chat-");
const MAX_KEPT = 50;

/** All chats that are kept, the last changed first. */
export function loadChats() {
  const places = hasKey() ? [[sessionStorage, IN_TAB]] : [[localStorage, IN_BROWSER], [sessionStorage, IN_TAB]];
  const chats = places.flatMap(([storage, prefix]) => Object.keys(storage).filter((name) => name.startsWith(prefix)).map((name) => JSON.parse(storage.getItem(name))));
  return chats.sort((a, b) => b.changed - a.changed);
}

/** Keep a chat. The oldest chats make room for it. Returns false if there isn't enough room. */
export function saveChat(chat) {
  const [storage, prefix] = isServerOpen() ? [localStorage, IN_BROWSER] : [sessionStorage, IN_TAB];
  const others = loadChats().filter(({ id }) => id !== chat.id);
  while (others.length >= MAX_KEPT) deleteChat(others.pop());
  for (;;) {
    try {
      storage.setItem(prefix + chat.id, JSON.stringify(compacted(chat)));
      return true;
    } catch {
      if (!others.length) return false; // the quota is used up
      deleteChat(others.pop());
    }
  }
}

export function deleteChat({ id }) {
  sessionStorage.removeItem(IN_TAB + id);
  localStorage.removeItem(IN_BROWSER + id);
}
