// The Chat page: chats of several turns with one model, or with several side by side.

import { hasKey, onKeyChange } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { hashOf, hashPath, hashQuery, replaceHash } from "../lib/location.js";
import { errorBox, liveRegion, problemBox, showBox } from "../lib/notices.js";
import { retryLater } from "../lib/polling.js";
import { bodyOf, isRunning, newChat, packed, titleOf, unpacked } from "./chat/chats.js";
import { Settings } from "./chat/settings.js";
import { shareDialog } from "./chat/share.js";
import { deleteChat, loadChats, saveChat } from "./chat/store.js";
import { TurnView } from "./chat/turn.js";
import { loadModels } from "./compare/models.js";
import { cancel, follow, hasEnded, newState } from "./compare/run.js";

const NEAR_END_PX = 80;

/** Show the page in `root`. Returns the function that leaves it. Answers are continued at the next visit. */
export function mount(root) {
  const page = new ChatPage(root);
  page.start();
  return () => page.stop();
}

class ChatPage {
  constructor(root) {
    this.leaving = new AbortController();
    this.following = new AbortController(); // of the answers of the chat that is shown
    this.isForgotten = false;
    this.firstModel = "";
    this.chat = newChat();
    this.turns = [];
    this.isShowing = false; // a frame that shows the answers is asked for
    this.chooser = h("select", { "aria-label": "Chats of this browser", onchange: () => this.goTo(this.chooser.value) });
    this.newButton = h("button", { type: "button", class: "button", onclick: () => this.startNew() }, "New chat");
    this.deleteButton = h("button", { type: "button", class: "button button-quiet", onclick: () => this.remove() }, "Delete");
    this.shareButton = h("button", { type: "button", class: "button", onclick: () => this.share() }, "Share …");
    this.settings = new Settings((values, removed) => this.changeSettings(values, removed));
    this.problem = h("div");
    this.modelProblem = h("div"); // why the models can't be listed
    this.thread = h("div", { class: "stack chat-thread", role: "log", "aria-label": "Chat", "aria-live": "off" });
    this.live = liveRegion();
    this.input = h("textarea", { id: "chat-input", rows: "3", required: true, "aria-label": "Message", placeholder: "Write a message. Enter sends it, Shift+Enter begins a new line.", onkeydown: (event) => this.sendByKey(event) });
    this.sendButton = h("button", { type: "submit", class: "button button-primary" }, "Send");
    this.stopButton = h("button", { type: "button", class: "button button-danger", disabled: true, onclick: () => this.cancelAnswers() }, "Stop");
    this.form = h("form", { class: "panel chat-form" }, this.input, h("div", { class: "row" }, this.sendButton, this.stopButton));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.input.value);
    });
    const head = h("div", { class: "row chat-head" }, this.chooser, this.newButton, this.shareButton, h("span", { class: "spacer" }), this.deleteButton);
    fill(root, head, this.settings.element, this.modelProblem, this.problem, this.thread, this.form, this.live.element);
    this.actions = {
      editText: (index, text) => this.editText(index, text),
      editAnswer: (index, model, text) => this.editAnswer(index, model, text),
      regenerate: (index, model) => this.answer(index, model),
      sendResults: (results) => this.addTurn({ text: null, results }),
    };
  }

  start() {
    const { signal } = this.leaving;
    addEventListener("hashchange", () => this.openFromHash(), { signal });
    addEventListener("pagehide", () => this.saveIfRunning(), { signal });
    const stopKey = onKeyChange(() => hasKey() || (this.isForgotten = true));
    signal.addEventListener("abort", stopKey);
    this.openFromHash();
    this.suggest();
  }

  stop() {
    this.saveIfRunning();
    this.following.abort();
    this.leaving.abort();
  }

  /** Show the chat that the hash names or holds, or a new one. */
  async openFromHash() {
    const shared = hashQuery().get("c");
    if (shared !== null) await this.openShared(shared);
    else if (hashPath() !== this.chat.id) this.open(loadChats().find(({ id }) => id === hashPath()) ?? newChat([this.firstModel]));
    else this.open(this.chat);
  }

  async openShared(text) {
    try {
      const chat = await unpacked(text);
      this.open(chat);
      this.save();
    } catch {
      this.open(newChat([this.firstModel]));
      showBox(this.problem, problemBox("The link is damaged, or a part of it is missing."));
    }
  }

  open(chat) {
    this.following.abort();
    this.following = new AbortController();
    this.chat = chat;
    showBox(this.problem, null);
    this.settings.show(chat);
    this.build();
    chat.turns.forEach((turn, index) => turn.answers.forEach((state, model) => state && !hasEnded(state) && this.follow(index, model, { ...state, isContinued: true })));
  }

  goTo(id) {
    this.saveIfRunning();
    location.hash = hashOf("chat", { path: id });
  }

  startNew() {
    this.saveIfRunning();
    replaceHash(hashOf("chat"));
    this.open(newChat(this.chat.models));
    this.input.focus();
  }

  saveIfRunning() {
    if (isRunning(this.chat)) this.save();
  }

  remove() {
    this.cancelAnswers();
    deleteChat(this.chat);
    this.startNew();
  }

  async share() {
    const text = await packed(this.chat);
    shareDialog(new URL(hashOf("chat", { query: { c: text } }), location.href).href);
  }

  changeSettings(values, removed = null) {
    const hasOtherModels = values.models.length !== this.chat.models.length;
    Object.assign(this.chat, values);
    if (removed !== null) for (const turn of this.chat.turns) turn.answers.splice(removed, 1);
    if (hasOtherModels) this.open(this.chat);
    if (this.chat.turns.length) this.save();
  }

  /** Build the turns anew. */
  build() {
    const { turns, models } = this.chat;
    this.turns = turns.map((_, index) => new TurnView(index, models.length, this.actions));
    fill(this.thread, this.turns.map(({ element }) => element));
    this.showChooser();
    this.show();
  }

  showChooser() {
    const kept = loadChats();
    const chats = kept.some(({ id }) => id === this.chat.id) ? kept : [this.chat, ...kept];
    fill(this.chooser, chats.map((chat) => h("option", { value: chat.id, selected: chat.id === this.chat.id }, titleOf(chat))));
  }

  show() {
    const { turns, models } = this.chat;
    const isNear = document.documentElement.scrollHeight - innerHeight - scrollY < NEAR_END_PX;
    this.turns.forEach((view, index) => view.show(turns[index], models, { isLast: index === turns.length - 1 }));
    const isBusy = isRunning(this.chat);
    this.stopButton.disabled = !isBusy;
    this.sendButton.disabled = isBusy;
    this.shareButton.disabled = turns.length === 0;
    if (isNear && isBusy) scrollTo({ top: document.documentElement.scrollHeight });
  }

  /** Show the chat once, with the next frame, even if several pieces arrive before it. */
  showSoon() {
    if (this.isShowing) return;
    this.isShowing = true;
    requestAnimationFrame(() => {
      this.isShowing = false;
      this.show();
    });
  }

  sendByKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.form.requestSubmit(this.sendButton);
  }

  send(text) {
    if (!text.trim() || isRunning(this.chat) || !this.settings.check()) return;
    if (this.addTurn({ text, results: [] })) this.input.value = "";
  }

  /** Add a turn and ask all models. Returns false if the settings don't allow a request. */
  addTurn(turn) {
    const { chat } = this;
    chat.turns.push({ ...turn, answers: chat.models.map(() => null) });
    if (!this.isAllowed()) {
      chat.turns.pop();
      return false;
    }
    this.build();
    chat.models.forEach((_, model) => this.answer(chat.turns.length - 1, model));
    scrollTo({ top: document.documentElement.scrollHeight });
    return true;
  }

  isAllowed() {
    try {
      bodyOf(this.chat, 0);
      showBox(this.problem, null);
      return true;
    } catch (error) {
      showBox(this.problem, problemBox(`Tools: not valid JSON. ${error.message}`));
      return false;
    }
  }

  /** Ask a model for its answer to a turn, which is the last one. */
  answer(index, model) {
    if (!this.isAllowed() || !this.settings.check()) return;
    this.follow(index, model, newState(bodyOf(this.chat, model)));
    this.save();
    this.input.focus();
  }

  /** Show and follow an answer to its end. */
  follow(index, model, state) {
    const { chat, following } = this;
    chat.turns[index].answers[model] = state;
    this.show();
    const signal = AbortSignal.any([this.leaving.signal, following.signal]);
    follow(state, signal, () => this.showSoon()).then(
      () => this.ended(chat, state),
      () => {}, // rejected if the answer is no longer followed
    );
  }

  ended(chat, state) {
    if (chat !== this.chat) return;
    this.show();
    this.save();
    if (!isRunning(chat)) this.live.say(state.error?.message ?? `Answer: ${state.text}`);
  }

  async cancelAnswers() {
    const states = this.chat.turns.at(-1)?.answers.filter((state) => state && !hasEnded(state)) ?? [];
    try {
      await Promise.all(states.map((state) => cancel(state)));
      this.input.focus();
    } catch (error) {
      showBox(this.problem, errorBox(error));
    }
  }

  /** Change what the user said, drop the later turns, and ask again. */
  editText(index, text) {
    if (!text.trim() || isRunning(this.chat)) return;
    this.chat.turns.length = index;
    this.addTurn({ text, results: [] });
  }

  /** Change an answer. The next requests contain it as it is then. */
  editAnswer(index, model, text) {
    Object.assign(this.chat.turns[index].answers[model], { text, isEdited: true });
    this.show();
    this.save();
  }

  save() {
    if (this.isForgotten) return;
    this.chat.changed = Date.now();
    const isKept = saveChat(this.chat);
    if (!isKept) showBox(this.problem, problemBox("The browser has no room for this chat, so it will be gone once you leave the page."));
    replaceHash(hashOf("chat", { path: this.chat.id }));
    this.showChooser();
  }

  /** Suggest the pool's models, and choose the first one in a new chat. */
  async suggest() {
    const { signal } = this.leaving;
    try {
      const { names, options } = await loadModels(signal);
      showBox(this.modelProblem, null);
      this.settings.suggest(options);
      this.firstModel = names[1] ?? names[0] ?? "";
      this.showChooser();
      if (this.chat.models.some(Boolean)) return;
      this.chat.models = [this.firstModel];
      this.settings.show(this.chat);
    } catch (error) {
      if (signal.aborted) return;
      showBox(this.modelProblem, errorBox(error, () => this.suggest()));
      retryLater(() => this.suggest(), error, signal);
    }
  }
}
