// Node's `openai` and Vercel's `ai` against a server: `node node_clients.mjs BASE_URL MODEL` prints what they received.
// It is copied into a folder that has the packages `openai`, `ai`, `@ai-sdk/openai` and `zod`.
import { createOpenAI } from "@ai-sdk/openai";
import { embed, generateText, streamText, tool } from "ai";
import OpenAI, { toFile } from "openai";
import { z } from "zod";

const [baseURL, model] = process.argv.slice(2);
const asked = "What is the weather in Rome?";
const messages = [{ role: "user", content: asked }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const client = new OpenAI({ baseURL, apiKey: "sk-test", maxRetries: 0 });
const vercel = createOpenAI({ baseURL, apiKey: "sk-test" });

// Header values that are new in every answer are starred, Weir's own are left out; the SDK makes ids and moments itself.
const fresh = /^(date|x-request-id|openai-processing-ms|x-ratelimit-(remaining|reset)-requests)$/;
const visible = (headers) =>
  Object.entries(headers)
    .filter(([name]) => !name.startsWith("x-weir-"))
    .map(([name, value]) => [name, fresh.test(name) ? "*" : value]);

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

async function raised(call) {
  try {
    return { unexpected: await call() };
  } catch (error) {
    return { name: error.constructor.name, status: error.status ?? error.statusCode, message: error.message, code: error.code };
  }
}

async function openai() {
  const { chat, embeddings, models, responses, audio, files } = client;
  const file = await toFile(Buffer.alloc(50_000, 7), "grüße.wav", { type: "audio/wav" });
  const uploaded = await files.create({ file: await toFile(Buffer.from('{"a": 1}\n'), "a.jsonl"), purpose: "batch" });
  const content = await (await files.content(uploaded.id)).text();
  await files.delete(uploaded.id);
  const parallel = [...Array(6).keys()].map((count) => chat.completions.create({ model, messages, max_tokens: count + 1 }));
  return {
    chat: await chat.completions.create({ model, messages, max_tokens: 9 }),
    parallel: await Promise.all(parallel),
    stream: await all(
      await chat.completions.create({ model, messages, max_tokens: 9, stream: true, stream_options: { include_usage: true } }),
    ),
    tools: await chat.completions.create({ model, messages, tools }),
    toolsStreamed: await all(await chat.completions.create({ model, messages, tools, stream: true })),
    embeddings: await embeddings.create({ model, input: ["a", "ü"] }),
    responses: await responses.create({ model, input: asked }),
    responsesStreamed: await all(await responses.create({ model, input: asked, stream: true })),
    models: (await models.list()).data,
    speech: Buffer.from(await (await audio.speech.create({ model, voice: "alloy", input: "Hi" })).arrayBuffer()).toString("hex"),
    transcription: await audio.transcriptions.create({ model, file }),
    content,
    unknown: await raised(() => chat.completions.create({ model: "unknown-model", messages })),
    limited: await raised(() => chat.completions.create({ model: "demo-429", messages })),
    failed: await raised(() => chat.completions.create({ model: "demo-500", messages })),
    headers: visible(Object.fromEntries((await chat.completions.create({ model, messages }).asResponse()).headers)),
  };
}

async function whole(languageModel) {
  const settings = { model: languageModel, prompt: asked, maxRetries: 0 };
  const weather = tool({ inputSchema: z.object({ city: z.string() }) });
  const text = await generateText(settings);
  const called = await generateText({ ...settings, tools: { get_weather: weather } });
  const streamed = streamText(settings);
  const parts = await all(streamed.fullStream);
  return {
    text: text.text,
    usage: text.usage,
    finish: text.finishReason,
    body: text.response.body,
    headers: visible(text.response.headers),
    calls: called.toolCalls,
    parts: parts.map(({ type, text: delta, finishReason, totalUsage }) => ({ type, delta, finishReason, totalUsage })),
    streamHeaders: visible((await streamed.response).headers),
  };
}

async function ai() {
  const failing = { model: vercel.chat("demo-500"), prompt: asked, maxRetries: 0 };
  return {
    chat: await whole(vercel.chat(model)),
    responses: await whole(vercel.responses(model)),
    embedding: (await embed({ model: vercel.embedding(model), value: "a" })).embedding,
    failed: await raised(() => generateText(failing)),
  };
}

globalThis.AI_SDK_LOG_WARNINGS = false;
console.log(JSON.stringify({ openai: await openai(), ai: await ai() }, null, 1));
