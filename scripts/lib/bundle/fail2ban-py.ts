import { readFileSync } from 'node:fs'

/** The program beside us; a bundle has its text instead (package.json, "imports"). */
// biome-ignore lint/style/noDefaultExport: as the loader "text" of esbuild has it
export default readFileSync(new URL('../fail2ban.py', import.meta.url), 'utf8')
