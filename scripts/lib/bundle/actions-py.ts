import { readFileSync } from 'node:fs'

/** The program of actions.ts; a bundle has its text instead (package.json, "imports"). */
// biome-ignore lint/style/noDefaultExport: as the loader "text" of esbuild has it
export default readFileSync(new URL('../net2ban/actions.py', import.meta.url), 'utf8')
