// Calls of every video operation by the installed `openai` for Node.
//
//     node openai_calls.mjs BASE_URL KEY CLIP
//
// On stdout comes one line of JSON: what went wrong of each call, null where nothing did.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const [baseURL, apiKey, clip] = process.argv.slice(2);
const require = createRequire(path.join(process.cwd(), "package.json"));
const { OpenAI, toFile } = require("openai");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });

const found = {};
async function tell(name, call) {
  try {
    await call();
    found[name] = null;
  } catch (error) {
    found[name] = String(error.stack ?? error);
  }
}
function must(so, what) {
  if (!so) throw new Error(`not so: ${what}`);
}
async function made() {
  const video = await client.videos.create({ prompt: "A heron lands" });
  must((await client.videos.retrieve(video.id)).status === "completed", "completed");
  return video.id;
}
function isVideo(video) {
  must(video.id.startsWith("video_") && video.object === "video" && video.status, "a video");
}
const isClip = (bytes) => must(bytes.subarray(4, 8).toString() === "ftyp", "an MP4");

const id = await made();
await tell("create", async () => isVideo(await client.videos.create({ prompt: "x" })));
await tell("create, all parameters", async () => {
  const image = await toFile(Buffer.from("\x89PNG\r\n\x1a\n0000", "latin1"), "a.png", { type: "image/png" });
  isVideo(await client.videos.create({ prompt: "x", input_reference: image, model: "string", seconds: "4", size: "720x1280" }));
});
await tell("create, an image by its URL", async () =>
  isVideo(await client.videos.create({ prompt: "x", input_reference: { image_url: "https://images.example/x.png" } })));
await tell("create, several groups", async () =>
  isVideo(await client.videos.create({ prompt: "x", target_model_names: ["sora-2", "string"] })));
await tell("createAndPoll", async () => {
  if (client.videos.createAndPoll) isVideo(await client.videos.createAndPoll({ prompt: "x" }));
});
await tell("retrieve", async () => must((await client.videos.retrieve(id)).id === id, "the same id"));
await tell("list, pages", async () => {
  await made(); await made(); await made();
  const ids = [];
  for await (const video of client.videos.list({ limit: 2 })) ids.push(video.id);
  must(ids.length > 3 && new Set(ids).size === ids.length && ids.includes(id), "all pages");
});
await tell("delete", async () => must((await client.videos.delete(await made())).deleted === true, "deleted"));
await tell("createCharacter, getCharacter, a video with it", async () => {
  const luna = await client.videos.createCharacter({ name: "Luna", video: fs.createReadStream(clip) });
  must((await client.videos.getCharacter(luna.id)).id === luna.id, "the same character");
  isVideo(await client.videos.create({ prompt: "Luna waves", characters: [{ id: luna.id }] }));
});
await tell("edit, by id", async () => isVideo(await client.videos.edit({ prompt: "x", video: { id } })));
await tell("edit, of a file", async () =>
  isVideo(await client.videos.edit({ prompt: "x", video: fs.createReadStream(clip), model: "sora-2" })));
await tell("extend, by id", async () => isVideo(await client.videos.extend({ prompt: "x", seconds: "4", video: { id } })));
await tell("extend, of a file", async () =>
  isVideo(await client.videos.extend({ prompt: "x", seconds: "4", video: fs.createReadStream(clip), model: "sora-2" })));
await tell("remix", async () => isVideo(await client.videos.remix(id, { prompt: "x" })));
await tell("downloadContent", async () => {
  const response = await client.videos.downloadContent(id);
  must(response.headers.get("content-type") === "video/mp4", "its type");
  isClip(Buffer.from(await response.arrayBuffer()));
});
await tell("downloadContent, streamed", async () => {
  const response = await client.videos.downloadContent(id, { variant: "video" });
  const to = path.join(process.cwd(), "streamed.mp4");
  await pipeline(Readable.fromWeb(response.body), fs.createWriteStream(to));
  isClip(fs.readFileSync(to));
});
await tell("raw responses", async () => {
  const { data, response, request_id } = await client.videos.retrieve(id).withResponse();
  must(data.id === id && response.status === 200 && request_id, "the response");
});
await tell("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  must(names.sort().join() === "sora-2,string", names.join());
});
await tell("errors", async () => {
  const stranger = new OpenAI({ baseURL, apiKey: "pk-wrong", maxRetries: 0 });
  const refused = await stranger.videos.retrieve(id).then(() => null, (error) => error);
  must(refused instanceof OpenAI.AuthenticationError && refused.code === "invalid_api_key", "401");
  const missing = await client.videos.retrieve(`${id}x`).then(() => null, (error) => error);
  must(missing instanceof OpenAI.NotFoundError && missing.requestID, "404");
});
const manifest = path.join(process.cwd(), "node_modules", "openai", "package.json");
console.log(JSON.stringify({ version: JSON.parse(fs.readFileSync(manifest)).version, found }));
